"""The timed session of a prompt."""

import pytest
import torch

from forejudge.options import SamplingParams
from forejudge.session import PromptSession, StageClock
from forejudge.types import IMAGE, Stage, latent_stage, prefix_stage
from tests.support.doubles import CPU, PROMPT, FakeClock, ScriptedGenerator, ScriptedVerifier


@pytest.fixture
def fake_time(monkeypatch: pytest.MonkeyPatch) -> FakeClock:
    fake = FakeClock()
    monkeypatch.setattr("forejudge.session.perf_counter", fake)
    return fake


def test_stages_add_up_and_time_between_them_is_not_counted(fake_time: FakeClock) -> None:
    clock = StageClock(CPU)
    for seconds in (1.0, 0.5):
        with clock.stage("prefix"):
            fake_time.advance(seconds)
        fake_time.advance(0.25)
    with clock.stage("decode"):
        fake_time.advance(2.0)
    assert clock.seconds == {"prefix": 1.5, "decode": 2.0}
    assert clock.elapsed == 4.0


def test_a_stage_that_raises_is_timed_too(fake_time: FakeClock) -> None:
    clock = StageClock(CPU)

    def fail_after_3_seconds() -> None:
        with clock.stage("prefix"):
            fake_time.advance(3.0)
            raise torch.OutOfMemoryError

    with pytest.raises(torch.OutOfMemoryError):
        fail_after_3_seconds()
    assert clock.seconds == {"prefix": 3.0}


@pytest.mark.parametrize("steps", [1, 3])
def test_a_candidate_is_finished_through_the_latent_of_its_last_step(steps: int) -> None:
    """The transformer's remaining steps count as suffix, and only the decoder as decoding."""
    generator = ScriptedGenerator()
    session = PromptSession(generator, ScriptedVerifier({}), PROMPT, SamplingParams(steps=steps))
    candidates, _ = session.score((5, 6))
    session.finish(candidates[[1]])
    assert generator.advanced == [(prefix_stage(2), 2), (latent_stage(steps - 1), 1), (IMAGE, 1)]


@pytest.mark.parametrize("reads", [prefix_stage(2), latent_stage(), IMAGE], ids=str)
def test_a_refined_candidate_is_finished_through_the_latent_of_one_step_more(reads: Stage) -> None:
    generator = ScriptedGenerator()
    session = PromptSession(generator, ScriptedVerifier({}, reads), PROMPT, SamplingParams())
    candidates, _ = session.score((5, 6))
    session.finish(candidates[[1]], refine=True)
    assert generator.advanced == [(reads, 2), (latent_stage(1), 1), (IMAGE, 1)]


@pytest.mark.parametrize(("reads", "kept"), [(prefix_stage(2), []), (latent_stage(), []), (IMAGE, [IMAGE])])
def test_scored_candidates_let_go_what_the_verifier_read(reads: Stage, kept: list[Stage]) -> None:
    session = PromptSession(ScriptedGenerator(), ScriptedVerifier({}, reads), PROMPT, SamplingParams())
    candidates, _ = session.score((5, 6))
    assert list(candidates.views) == kept


class QueuedWork:
    """Stand-in for a CUDA device: work is queued at once and done later, by a clock of its own."""

    def __init__(self) -> None:
        self.done_at, self.waited = 0.0, 0

    def current_stream(self, device: torch.device) -> None:
        assert device.type == "cuda"

    def Event(self, enable_timing: bool) -> "QueuedEvent":  # noqa: N802 - as torch calls it
        assert enable_timing, "else its time cannot be read"
        return QueuedEvent(self)


class QueuedEvent:
    def __init__(self, work: QueuedWork) -> None:
        self.work = work

    def record(self, stream: None) -> None:
        self.at = self.work.done_at

    def synchronize(self) -> None:
        self.work.waited += 1

    def elapsed_time(self, other: "QueuedEvent") -> float:
        return 1000 * (other.at - self.at)


def test_on_a_gpu_no_stage_waits_until_its_time_is_read(fake_time: FakeClock, monkeypatch: pytest.MonkeyPatch) -> None:
    work = QueuedWork()
    monkeypatch.setattr("forejudge.session.torch.cuda", work)
    clock = StageClock(torch.device("cuda"))
    for stage, seconds in (("prefix", 2.0), ("verify", 1.0), ("prefix", 2.0)):
        with clock.stage(stage):
            work.done_at += seconds
    assert (clock.elapsed, work.waited) == (0.0, 0)
    assert clock.seconds == {"prefix": 4.0, "verify": 1.0}
    assert work.waited


@pytest.mark.gpu
def test_on_a_gpu_a_stage_ends_with_its_work() -> None:
    clock = StageClock(torch.device("cuda"))
    matrix = torch.randn(8192, 8192, device="cuda")
    with clock.stage("asked for and done"):
        for _ in range(20):
            matrix @ matrix
    before = clock.elapsed
    torch.cuda.synchronize()
    waited = clock.elapsed - before
    assert 0.9 * waited < clock.seconds["asked for and done"] < 2 * waited
