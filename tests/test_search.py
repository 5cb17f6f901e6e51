"""The loop, on stand-ins that write down what is asked of them."""

from collections.abc import Callable

import pytest
import torch

from forejudge.generators.base import SamplingParams
from forejudge.noise import candidate_seed
from forejudge.policies import SearchLimits, SearchPolicy
from forejudge.search import (
    PromptSession,
    Search,
    SearchOutput,
    StageClock,
    first_index_reaching,
    order_by_score,
    passed,
)
from forejudge.types import IMAGE, NOISE, Stage, Verdict, latent_stage, prefix_stage
from tests.support.doubles import CPU, PROMPT, FakeClock, ScriptedGenerator, ScriptedVerifier, probabilities


@pytest.fixture
def fake_time(monkeypatch: pytest.MonkeyPatch) -> FakeClock:
    fake = FakeClock()
    monkeypatch.setattr("forejudge.search.perf_counter", fake)
    return fake


def test_stages_add_up_and_time_between_them_counts_to_none(fake_time: FakeClock) -> None:
    clock = StageClock(CPU)
    for seconds in (1.0, 0.5):
        with clock.stage("prefix"):
            fake_time.advance(seconds)
        fake_time.advance(0.25)
    with clock.stage("decode"):
        fake_time.advance(2.0)
    assert clock.seconds == {"prefix": 1.5, "decode": 2.0}
    assert clock.elapsed == 4.0


def test_a_stage_that_fails_has_taken_its_time_too(fake_time: FakeClock) -> None:
    clock = StageClock(CPU)

    def fail_after_3_seconds() -> None:
        with clock.stage("prefix"):
            fake_time.advance(3.0)
            raise torch.OutOfMemoryError

    with pytest.raises(torch.OutOfMemoryError):
        fail_after_3_seconds()
    assert clock.seconds == {"prefix": 3.0}


class QueuedWork:
    """Stands in for a CUDA device: work is asked for at once and done later, at the pace of its own clock."""

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


def test_on_a_gpu_nobody_waits_for_a_stage_until_its_time_is_asked_for(
    fake_time: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    work = QueuedWork()
    monkeypatch.setattr("forejudge.search.torch.cuda", work)
    clock = StageClock(torch.device("cuda"))
    for stage, seconds in (("prefix", 2.0), ("verify", 1.0), ("prefix", 2.0)):
        with clock.stage(stage):
            work.done_at += seconds
    assert (clock.elapsed, work.waited) == (0.0, 0)
    assert clock.seconds == {"prefix": 4.0, "verify": 1.0}
    assert work.waited


@pytest.mark.gpu
def test_on_a_gpu_a_stage_ends_when_its_work_has_ended() -> None:
    clock = StageClock(torch.device("cuda"))
    matrix = torch.randn(8192, 8192, device="cuda")
    with clock.stage("asked for and done"):
        for _ in range(20):
            matrix @ matrix
    before = clock.elapsed
    torch.cuda.synchronize()
    waited = clock.elapsed - before
    assert 0.9 * waited < clock.seconds["asked for and done"] < 2 * waited


def sure_of(*probabilities: float | None) -> list[Verdict]:
    return [Verdict(score=0.0, probability=probability) for probability in probabilities]


def test_the_highest_score_stands_first() -> None:
    assert order_by_score([Verdict(-3.0), Verdict(2.5), Verdict(0.0)]) == (1, 2, 0)


def test_of_equal_scores_the_first_drawn_stands_first() -> None:
    assert order_by_score([Verdict(1.0), Verdict(2.0), Verdict(1.0), Verdict(2.0)]) == (1, 3, 0, 2)


def test_nothing_drawn_has_no_order() -> None:
    assert order_by_score([]) == ()


@pytest.mark.parametrize(("wanted", "index"), [(0.3, 0), (0.4, 2), (0.7, 2), (0.9, 3), (0.95, None)])
def test_the_first_that_is_sure_enough_is_found(wanted: float, index: int | None) -> None:
    assert first_index_reaching(sure_of(0.3, 0.2, 0.7, 0.9), wanted) == index


def test_without_a_probability_nothing_is_sure() -> None:
    assert first_index_reaching(sure_of(None, None), 0.1) is None


@pytest.mark.parametrize(("probability", "verdict"), [(0.5, True), (0.49, False), (1.0, True), (None, None)])
def test_a_candidate_passes_from_one_half_on(probability: float | None, verdict: bool | None) -> None:
    (judged,) = sure_of(probability)
    assert passed(judged) is verdict


CUT = prefix_stage(2)
SCRIPT = probabilities(0.2, 0.6, 0.1, 0.7, 0.95, 0.3, 0.8, 0.96, 0.4)
SEEDS = tuple(candidate_seed(0, PROMPT, 0, index) for index in range(9))


def searching(
    limits: SearchLimits,
    batch_size: int,
    *,
    top_k: int = 1,
    script: dict[int, float] = SCRIPT,
    generator: ScriptedGenerator | None = None,
    reads: tuple[Stage, ...] = (),
) -> Search:
    verifier = ScriptedVerifier(script, *reads)
    session = PromptSession(generator or ScriptedGenerator(), verifier, PROMPT, SamplingParams())
    return Search(session, SearchPolicy(limits, batch_size), top_k)


def what_was_chosen(found: SearchOutput) -> tuple:
    return found.verdicts, found.order, list(found.images), found.stopped_by


@pytest.mark.parametrize("batch_size", [1, 2, 3, 8, 32])
def test_the_best_of_n_wins_whatever_the_chunks(batch_size: int) -> None:
    found = searching(SearchLimits(n=9), batch_size).run(SEEDS)
    assert [verdict.probability for verdict in found.verdicts] == list(SCRIPT.values())
    assert found.order == (7, 4, 6, 3, 1, 8, 5, 0, 2)
    assert list(found.images) == [7]
    assert found.images[7].getpixel((0, 0)) == SEEDS[7] % 2**31
    assert (found.stopped_by, found.num_generated) == ("n", 9)


def test_losers_are_not_finished_and_nothing_is_done_twice() -> None:
    generator = ScriptedGenerator()
    searching(SearchLimits(n=9), 4, generator=generator).run(SEEDS)
    assert generator.encoded == 1
    assert generator.advanced == [(CUT, 4), (CUT, 4), (CUT, 1), (latent_stage(), 1), (IMAGE, 1)]


@pytest.mark.parametrize("reads", [(NOISE,), (latent_stage(),), (IMAGE,), (NOISE, CUT, IMAGE)])
def test_the_verifier_says_how_far_candidates_go(reads: tuple[Stage, ...]) -> None:
    generator = ScriptedGenerator()
    found = searching(SearchLimits(n=9), 9, generator=generator, reads=reads).run(SEEDS)
    assert list(found.images) == [7]
    assert found.images[7].getpixel((0, 0)) == SEEDS[7] % 2**31
    assert {stage for stage, count in generator.advanced if count == 9} == set(reads)
    finished_alone = {stage for stage, count in generator.advanced if count == 1}
    assert finished_alone == {latent_stage(), IMAGE} - {
        stage for stage in (latent_stage(), IMAGE) if stage <= max(reads)
    }


@pytest.mark.parametrize("top_k", [1, 3, 20])
def test_only_the_best_are_kept_and_finished(top_k: int) -> None:
    search = searching(SearchLimits(n=9), 2, top_k=top_k)
    kept: list[list[int]] = []

    def look(judged: int, most: int) -> None:
        assert most == 9
        assert len(search.best) == min(top_k, judged)
        assert all(len(candidates) == 1 for candidates in search.best.values())
        kept.append(list(search.best))

    found = search.run(SEEDS, look)
    assert len(kept) == 5
    assert kept[1] == [3, 1, 0, 2][:top_k]
    assert list(found.images) == list(found.order[:top_k])


class TestUntil:
    """It ends at the first index that is sure enough; who else was in its chunk changes nothing."""

    @pytest.mark.parametrize(("batch_size", "unused"), [(1, 0), (3, 1), (8, 3), (32, 4)])
    def test_the_chunk_size_changes_nothing(self, batch_size: int, unused: int) -> None:
        found = searching(SearchLimits(n=9, until=0.9), batch_size).run(SEEDS)
        assert len(found.verdicts) == 5
        assert found.order == (4, 3, 1, 0, 2)
        assert list(found.images) == [4]
        assert found.stopped_by == "until"
        assert found.num_generated - len(found.verdicts) == unused

    def test_the_number_drawn_repeats_it(self) -> None:
        until = searching(SearchLimits(n=9, until=0.9), 3).run(SEEDS)
        again = searching(SearchLimits(n=len(until.verdicts)), 3).run(SEEDS)
        assert what_was_chosen(again)[:3] == what_was_chosen(until)[:3]
        assert again.stopped_by == "n"

    @pytest.mark.parametrize(
        ("limits", "stopped_by"), [(SearchLimits(n=9, until=0.97), "n"), (SearchLimits(until=1, max_n=9), "max_n")]
    )
    def test_the_cap_ends_a_search_that_is_never_sure(self, limits: SearchLimits, stopped_by: str) -> None:
        found = searching(limits, 4).run(SEEDS)
        assert (found.stopped_by, len(found.verdicts), found.order[0]) == (stopped_by, 9, 7)

    def test_reached_by_the_last_candidate_it_ended_the_search(self) -> None:
        found = searching(SearchLimits(n=8, until=0.96), 8).run(SEEDS)
        assert (found.stopped_by, len(found.verdicts), found.num_generated) == ("until", 8, 8)

    def test_a_better_candidate_behind_the_end_stays_unused(self) -> None:
        found = searching(SearchLimits(n=9, until=0.5), 9).run(SEEDS)
        assert (found.order, found.stopped_by, found.num_generated) == ((1, 0), "until", 9)


class TestOutOfMemory:
    """A chunk that does not fit is halved, and the search goes on as if nothing had happened."""

    @staticmethod
    def no_more_than(most: int, error: RuntimeError) -> Callable[[int], None]:
        def check(count: int) -> None:
            if count > most:
                raise error

        return check

    @pytest.mark.parametrize("error", [
        torch.OutOfMemoryError("CUDA out of memory"),
        RuntimeError("[enforce fail at alloc_cpu.cpp:127] DefaultCPUAllocator: can't allocate memory"),
    ])  # fmt: skip
    def test_the_chunk_is_halved(self, error: RuntimeError) -> None:
        generator = ScriptedGenerator(self.no_more_than(2, error))
        found = searching(SearchLimits(n=9), 8, generator=generator).run(SEEDS)
        assert what_was_chosen(found) == what_was_chosen(searching(SearchLimits(n=9), 8).run(SEEDS))
        assert [count for stage, count in generator.advanced if stage == CUT] == [2, 2, 2, 2, 1]

    def test_until_holds_then_too(self) -> None:
        generator = ScriptedGenerator(self.no_more_than(3, torch.OutOfMemoryError()))
        found = searching(SearchLimits(n=9, until=0.9), 8, generator=generator).run(SEEDS)
        assert what_was_chosen(found) == what_was_chosen(searching(SearchLimits(n=9, until=0.9), 8).run(SEEDS))

    def test_one_candidate_that_does_not_fit_is_an_error(self) -> None:
        generator = ScriptedGenerator(self.no_more_than(0, torch.OutOfMemoryError("no room")))
        with pytest.raises(torch.OutOfMemoryError, match="no room"):
            searching(SearchLimits(n=9), 8, generator=generator).run(SEEDS)

    def test_other_errors_are_not_swallowed(self) -> None:
        generator = ScriptedGenerator(self.no_more_than(2, RuntimeError("shapes cannot be multiplied")))
        with pytest.raises(RuntimeError, match="shapes"):
            searching(SearchLimits(n=9), 8, generator=generator).run(SEEDS)


def test_every_stage_is_timed() -> None:
    found = searching(SearchLimits(n=9), 4).run(SEEDS)
    assert set(found.timings) == {"encode", "prefix", "verify", "suffix", "decode", "total"}
    parts = sum(seconds for stage, seconds in found.timings.items() if stage != "total")
    assert 0 < parts <= found.timings["total"]
