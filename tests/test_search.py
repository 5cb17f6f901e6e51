"""The search loop, on scripted models that record what is asked of them."""

from collections.abc import Callable
from dataclasses import dataclass, field

import pytest
import torch

from forejudge.errors import BrokenImage
from forejudge.generators.base import SamplingParams
from forejudge.noise import candidate_seed
from forejudge.options import SearchOptions
from forejudge.policies import AllPolicies, LatencyEstimate, SearchPolicy, SearchState
from forejudge.search import SearchOutput, is_doubtful, order_by_score, search
from forejudge.session import PromptSession
from forejudge.types import BROKEN, IMAGE, NOISE, Stage, Verdict, latent_stage, passed, prefix_stage
from tests.support.doubles import PROMPT, FakeClock, ScriptedGenerator, ScriptedVerifier, probabilities


def test_the_highest_score_comes_first() -> None:
    assert order_by_score([Verdict(-3.0), Verdict(2.5), Verdict(0.0)]) == (1, 2, 0)


def test_ties_go_to_the_earlier_candidate() -> None:
    assert order_by_score([Verdict(1.0), Verdict(2.0), Verdict(1.0), Verdict(2.0)]) == (1, 3, 0, 2)


def test_no_candidates_have_no_order() -> None:
    assert order_by_score([]) == ()


@pytest.mark.parametrize(("probability", "verdict"), [(0.5, True), (0.49, False), (1.0, True), (None, None)])
def test_a_candidate_passes_from_one_half_on(probability: float | None, verdict: bool | None) -> None:
    assert passed(probability) is verdict


CUT = prefix_stage(2)
SCRIPT = probabilities(0.2, 0.6, 0.1, 0.7, 0.95, 0.3, 0.8, 0.96, 0.4)
SEEDS = tuple(candidate_seed(0, PROMPT, 0, index) for index in range(9))


def no_costs(seconds: float) -> LatencyEstimate:
    raise AssertionError("no budget, so nothing is measured")


def run(
    batch_size: int,
    *,
    top_k: int = 1,
    script: dict[int, float] = SCRIPT,
    generator: ScriptedGenerator | None = None,
    reads: tuple[Stage, ...] = (),
    refine_below: float = 0.0,
    **options: float,
) -> SearchOutput:
    """Search among `SEEDS`; `options` are fields of `SearchOptions`."""
    verifier = ScriptedVerifier(script, *reads)
    session = PromptSession(generator or ScriptedGenerator(), verifier, PROMPT, SamplingParams())
    policy = AllPolicies.from_options(SearchOptions.model_validate(options), no_costs)
    return search(session, policy, SEEDS, top_k=top_k, refine_below=refine_below, max_batch_size=batch_size)


def chosen(output: SearchOutput) -> tuple:
    return output.verdicts, output.order, list(output.images), output.stopped_by


@pytest.mark.parametrize("batch_size", [1, 2, 3, 8, 32])
def test_the_best_of_n_wins_whatever_the_batch_size(batch_size: int) -> None:
    found = run(batch_size, n=9)
    assert [verdict.probability for verdict in found.verdicts] == list(SCRIPT.values())
    assert found.order == (7, 4, 6, 3, 1, 8, 5, 0, 2)
    assert list(found.images) == [7]
    assert found.images[7].getpixel((0, 0)) == SEEDS[7] % 2**31
    assert (found.stopped_by, found.num_generated) == ("n", 9)


def test_losers_are_not_finished_and_nothing_is_done_twice() -> None:
    generator = ScriptedGenerator()
    run(4, generator=generator, n=9)
    assert generator.encoded == 1
    assert generator.advanced == [(CUT, 4), (CUT, 4), (CUT, 1), (latent_stage(), 1), (IMAGE, 1)]


@pytest.mark.parametrize("reads", [(NOISE,), (latent_stage(),), (IMAGE,), (NOISE, CUT, IMAGE)])
def test_the_verifier_says_how_far_candidates_go(reads: tuple[Stage, ...]) -> None:
    generator = ScriptedGenerator()
    found = run(9, generator=generator, reads=reads, n=9)
    assert list(found.images) == [7]
    assert found.images[7].getpixel((0, 0)) == SEEDS[7] % 2**31
    assert {stage for stage, count in generator.advanced if count == 9} == set(reads)
    finished_alone = {stage for stage, count in generator.advanced if count == 1}
    assert finished_alone == {latent_stage(), IMAGE} - {
        stage for stage in (latent_stage(), IMAGE) if stage <= max(reads)
    }


@dataclass
class RecordingPolicy(SearchPolicy):
    """Policy that keeps every state it sees, and scores two candidates at a time."""

    states: list[SearchState] = field(default_factory=list)
    option = "n"

    @classmethod
    def from_options(cls, options: SearchOptions, measure: object, prior: object) -> "RecordingPolicy":
        return cls()

    def next_batch(self, state: SearchState) -> int:
        self.states.append(state)
        return min(2, len(SEEDS) - state.num_generated)


class Insatiable(RecordingPolicy):
    """Policy that asks for two more candidates for ever."""

    def next_batch(self, state: SearchState) -> int:
        return 2


@pytest.mark.parametrize("policy", [Insatiable(), AllPolicies((Insatiable(),))])
def test_a_policy_that_asks_for_more_than_there_are_seeds_is_stopped(policy: SearchPolicy) -> None:
    session = PromptSession(ScriptedGenerator(), ScriptedVerifier(SCRIPT), PROMPT, SamplingParams())
    output = search(session, policy, SEEDS)
    assert (output.num_generated, output.stopped_by, output.refined) == (9, "max_n", ())
    assert output.batch_timings[-1][0] == 1
    assert list(output.images) == [7]


@pytest.mark.parametrize("top_k", [1, 3, 20])
def test_only_the_best_are_kept_and_finished(top_k: int) -> None:
    session, policy = (
        PromptSession(ScriptedGenerator(), ScriptedVerifier(SCRIPT), PROMPT, SamplingParams()),
        RecordingPolicy(),
    )
    progress: list[tuple[int, int]] = []
    found = search(session, policy, SEEDS, top_k=top_k, on_progress=lambda *counts: progress.append(counts))
    assert progress == [(2, 9), (4, 9), (6, 9), (8, 9), (9, 9)]
    kept = [list(state.best) for state in policy.states]
    assert [len(indices) for indices in kept] == [min(top_k, count) for count in (0, 2, 4, 6, 8, 9)]
    assert all(len(candidates) == 1 for state in policy.states for candidates in state.best.values())
    assert kept[2] == [3, 1, 0, 2][:top_k]
    assert list(found.images) == list(found.order[:top_k])


def test_a_policy_sees_how_long_every_batch_took(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = FakeClock()
    monkeypatch.setattr("forejudge.session.perf_counter", clock)
    generator = ScriptedGenerator(before_advance=lambda count: clock.advance(count / 4))
    session = PromptSession(generator, ScriptedVerifier(SCRIPT), PROMPT, SamplingParams())
    clock.advance(1)
    policy = RecordingPolicy()
    output = search(session, policy, SEEDS, max_batch_size=2)
    assert [state.elapsed for state in policy.states] == [1, 1.5, 2, 2.5, 3, 3.25]
    timings = (*[(2, 0.5)] * 4, (1, 0.25))
    assert [state.batch_timings for state in policy.states] == [timings[:count] for count in range(6)]
    assert [state.max_batch_size for state in policy.states] == [2] * 6
    assert output.batch_timings == timings


class TestUntil:
    """A search ends at the first candidate that is sure enough, whoever else is in its batch."""

    @pytest.mark.parametrize(("batch_size", "unused"), [(1, 0), (3, 1), (8, 3), (32, 4)])
    def test_the_batch_size_changes_nothing(self, batch_size: int, unused: int) -> None:
        found = run(batch_size, n=9, until=0.9)
        assert len(found.verdicts) == 5
        assert found.order == (4, 3, 1, 0, 2)
        assert list(found.images) == [4]
        assert found.stopped_by == "until"
        assert found.num_generated - len(found.verdicts) == unused

    def test_the_number_used_repeats_it(self) -> None:
        until = run(3, n=9, until=0.9)
        again = run(3, n=len(until.verdicts))
        assert chosen(again)[:3] == chosen(until)[:3]
        assert again.stopped_by == "n"

    @pytest.mark.parametrize(
        ("options", "stopped_by"), [({"n": 9, "until": 0.97}, "n"), ({"until": 1, "max_n": 9}, "max_n")]
    )
    def test_the_cap_ends_a_search_that_is_never_sure(self, options: dict, stopped_by: str) -> None:
        found = run(4, **options)
        assert (found.stopped_by, len(found.verdicts), found.order[0]) == (stopped_by, 9, 7)

    def test_reached_by_the_last_candidate_it_ended_the_search(self) -> None:
        found = run(8, n=8, until=0.96)
        assert (found.stopped_by, len(found.verdicts), found.num_generated) == ("until", 8, 8)

    def test_a_better_candidate_behind_the_end_stays_unused(self) -> None:
        found = run(9, n=9, until=0.5)
        assert (found.order, found.stopped_by, found.num_generated) == ((1, 0), "until", 9)


class TestOutOfMemory:
    """A batch that does not fit in memory is halved, and the outcome stays the same."""

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
    def test_the_batch_is_halved(self, error: RuntimeError) -> None:
        generator = ScriptedGenerator(self.no_more_than(2, error))
        found = run(8, generator=generator, n=9)
        assert chosen(found) == chosen(run(8, n=9))
        assert [count for stage, count in generator.advanced if stage == CUT] == [2, 2, 2, 2, 1]

    def test_two_candidates_are_halved_too(self) -> None:
        generator = ScriptedGenerator(self.no_more_than(1, torch.OutOfMemoryError()))
        found = run(2, generator=generator, n=3)
        assert chosen(found) == chosen(run(2, n=3))
        assert [count for stage, count in generator.advanced if stage == CUT] == [1, 1, 1]

    def test_until_holds_then_too(self) -> None:
        generator = ScriptedGenerator(self.no_more_than(3, torch.OutOfMemoryError()))
        found = run(8, generator=generator, n=9, until=0.9)
        assert chosen(found) == chosen(run(8, n=9, until=0.9))

    def test_one_candidate_that_does_not_fit_is_an_error(self) -> None:
        generator = ScriptedGenerator(self.no_more_than(0, torch.OutOfMemoryError("no room")))
        with pytest.raises(torch.OutOfMemoryError, match="no room"):
            run(8, generator=generator, n=9)

    def test_other_errors_are_not_swallowed(self) -> None:
        generator = ScriptedGenerator(self.no_more_than(2, RuntimeError("shapes cannot be multiplied")))
        with pytest.raises(RuntimeError, match="shapes"):
            run(8, generator=generator, n=9)


class TestBrokenImages:
    """An image that is not finite never wins, whatever its score was before it was finished."""

    @pytest.mark.parametrize("top_k", [1, 2, 5, 20])
    def test_the_next_best_is_finished_instead(self, top_k: int) -> None:
        broken = {SEEDS[7], SEEDS[6]}
        found = run(4, n=9, top_k=top_k, generator=ScriptedGenerator(broken=broken))
        assert list(found.images) == [4, 3, 1, 8, 5, 0, 2][:top_k]
        assert found.broken == ((7,) if top_k == 1 else (7, 6))
        assert all(image.getpixel((0, 0)) == SEEDS[index] % 2**31 for index, image in found.images.items())

    @pytest.mark.parametrize("batch_size", [1, 4, 9])
    def test_a_verifier_of_images_is_not_shown_one(self, batch_size: int) -> None:
        generator = ScriptedGenerator(broken={SEEDS[0], SEEDS[7]})
        found = run(batch_size, n=9, reads=(IMAGE,), generator=generator)
        assert [index for index, verdict in enumerate(found.verdicts) if verdict == BROKEN] == [0, 7]
        assert (list(found.images), found.order[-2:], found.verdicts[4].score) == ([4], (0, 7), 0.95)

    @pytest.mark.parametrize("reads", [(), (IMAGE,)])
    @pytest.mark.parametrize("n", [1, 9])
    def test_if_all_are_broken_the_search_fails(self, reads: tuple[Stage, ...], n: int) -> None:
        with pytest.raises(BrokenImage, match=rf"none of {n} candidates gives an image: .* seed \d+ has"):
            run(4, n=n, reads=reads, generator=ScriptedGenerator(broken=SEEDS))


def test_every_stage_is_timed() -> None:
    found = run(4, n=9)
    assert set(found.timings) == {"encode", "prefix", "verify", "suffix", "decode", "total"}
    parts = sum(seconds for stage, seconds in found.timings.items() if stage != "total")
    assert 0 < parts <= found.timings["total"]


@pytest.mark.parametrize(("probability", "doubtful"), [(0.0, True), (None, True), (0.49, True), (0.5, False)])
def test_an_image_without_a_chance_is_doubtful_too(probability: float | None, doubtful: bool) -> None:
    assert is_doubtful(Verdict(0.0, probability=probability), 0.5) is doubtful


@pytest.mark.parametrize(
    ("refine_below", "refined"), [(0.0, ()), (0.8, ()), (0.81, (6,)), (0.96, (4, 6)), (1.0, (7, 4, 6))]
)
def test_images_below_the_probability_are_refined(refine_below: float, refined: tuple[int, ...]) -> None:
    """The three best have probabilities of 0.96, 0.95 and 0.8; one that reaches it is finished as it is."""
    generator = ScriptedGenerator()
    output = run(4, n=9, top_k=3, refine_below=refine_below, generator=generator)
    assert list(output.images) == [7, 4, 6]
    assert output.refined == refined
    assert generator.advanced.count((latent_stage(1), 1)) == len(refined)
