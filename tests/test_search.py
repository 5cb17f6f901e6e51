"""The loop, on stand-ins that write down what is asked of them."""

from collections.abc import Callable

import pytest
import torch
from tests.doubles import PROMPT, ScriptedGenerator, ScriptedVerifier, probabilities

from forejudge.budget import Limits, Pace
from forejudge.draw import Drawing
from forejudge.generators.base import Sampling
from forejudge.noise import candidate_seed
from forejudge.search import Found, Search
from forejudge.types import IMAGE, NOISE, Stage, latent_stage, prefix_stage

CUT = prefix_stage(2)
SCRIPT = probabilities(0.2, 0.6, 0.1, 0.7, 0.95, 0.3, 0.8, 0.96, 0.4)
SEEDS = tuple(candidate_seed(0, PROMPT, 0, index) for index in range(9))


def searching(
    limits: Limits,
    batch_size: int,
    *,
    top_k: int = 1,
    script: dict[int, float] = SCRIPT,
    generator: ScriptedGenerator | None = None,
    reads: tuple[Stage, ...] = (),
) -> Search:
    verifier = ScriptedVerifier(script, *reads)
    drawing = Drawing(generator or ScriptedGenerator(), verifier, PROMPT, Sampling())
    return Search(drawing, Pace(limits, batch_size), top_k)


def what_was_chosen(found: Found) -> tuple:
    return found.verdicts, found.order, list(found.images), found.ended_by


@pytest.mark.parametrize("batch_size", [1, 2, 3, 8, 32])
def test_the_best_of_n_wins_whatever_the_chunks(batch_size: int) -> None:
    found = searching(Limits(n=9), batch_size).run(SEEDS)
    assert [verdict.probability for verdict in found.verdicts] == list(SCRIPT.values())
    assert found.order == (7, 4, 6, 3, 1, 8, 5, 0, 2)
    assert list(found.images) == [7]
    assert found.images[7].getpixel((0, 0)) == SEEDS[7] % 2**31
    assert (found.ended_by, found.drawn) == ("n", 9)


def test_losers_are_not_finished_and_nothing_is_done_twice() -> None:
    generator = ScriptedGenerator()
    searching(Limits(n=9), 4, generator=generator).run(SEEDS)
    assert generator.encoded == 1
    assert generator.advanced == [(CUT, 4), (CUT, 4), (CUT, 1), (latent_stage(), 1), (IMAGE, 1)]


@pytest.mark.parametrize("reads", [(NOISE,), (latent_stage(),), (IMAGE,), (NOISE, CUT, IMAGE)])
def test_the_verifier_says_how_far_candidates_go(reads: tuple[Stage, ...]) -> None:
    generator = ScriptedGenerator()
    found = searching(Limits(n=9), 9, generator=generator, reads=reads).run(SEEDS)
    assert list(found.images) == [7]
    assert found.images[7].getpixel((0, 0)) == SEEDS[7] % 2**31
    assert {stage for stage, count in generator.advanced if count == 9} == set(reads)
    finished_alone = {stage for stage, count in generator.advanced if count == 1}
    assert finished_alone == {latent_stage(), IMAGE} - {
        stage for stage in (latent_stage(), IMAGE) if stage <= max(reads)
    }


@pytest.mark.parametrize("top_k", [1, 3, 20])
def test_only_the_best_are_kept_and_finished(top_k: int) -> None:
    search = searching(Limits(n=9), 2, top_k=top_k)
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
        found = searching(Limits(n=9, until=0.9), batch_size).run(SEEDS)
        assert len(found.verdicts) == 5
        assert found.order == (4, 3, 1, 0, 2)
        assert list(found.images) == [4]
        assert found.ended_by == "until"
        assert found.drawn - len(found.verdicts) == unused

    def test_the_number_drawn_repeats_it(self) -> None:
        until = searching(Limits(n=9, until=0.9), 3).run(SEEDS)
        again = searching(Limits(n=len(until.verdicts)), 3).run(SEEDS)
        assert what_was_chosen(again)[:3] == what_was_chosen(until)[:3]
        assert again.ended_by == "n"

    @pytest.mark.parametrize(
        ("limits", "ended_by"), [(Limits(n=9, until=0.97), "n"), (Limits(until=1, max_n=9), "max_n")]
    )
    def test_the_cap_ends_a_search_that_is_never_sure(self, limits: Limits, ended_by: str) -> None:
        found = searching(limits, 4).run(SEEDS)
        assert (found.ended_by, len(found.verdicts), found.order[0]) == (ended_by, 9, 7)

    def test_reached_by_the_last_candidate_it_ended_the_search(self) -> None:
        found = searching(Limits(n=8, until=0.96), 8).run(SEEDS)
        assert (found.ended_by, len(found.verdicts), found.drawn) == ("until", 8, 8)

    def test_a_better_candidate_behind_the_end_stays_unused(self) -> None:
        found = searching(Limits(n=9, until=0.5), 9).run(SEEDS)
        assert (found.order, found.ended_by, found.drawn) == ((1, 0), "until", 9)


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
        found = searching(Limits(n=9), 8, generator=generator).run(SEEDS)
        assert what_was_chosen(found) == what_was_chosen(searching(Limits(n=9), 8).run(SEEDS))
        assert [count for stage, count in generator.advanced if stage == CUT] == [2, 2, 2, 2, 1]

    def test_until_holds_then_too(self) -> None:
        generator = ScriptedGenerator(self.no_more_than(3, torch.OutOfMemoryError()))
        found = searching(Limits(n=9, until=0.9), 8, generator=generator).run(SEEDS)
        assert what_was_chosen(found) == what_was_chosen(searching(Limits(n=9, until=0.9), 8).run(SEEDS))

    def test_one_candidate_that_does_not_fit_is_an_error(self) -> None:
        generator = ScriptedGenerator(self.no_more_than(0, torch.OutOfMemoryError("no room")))
        with pytest.raises(torch.OutOfMemoryError, match="no room"):
            searching(Limits(n=9), 8, generator=generator).run(SEEDS)

    def test_other_errors_are_not_swallowed(self) -> None:
        generator = ScriptedGenerator(self.no_more_than(2, RuntimeError("shapes cannot be multiplied")))
        with pytest.raises(RuntimeError, match="shapes"):
            searching(Limits(n=9), 8, generator=generator).run(SEEDS)


def test_every_stage_is_timed() -> None:
    found = searching(Limits(n=9), 4).run(SEEDS)
    assert set(found.timings) == {"encode", "prefix", "verify", "suffix", "decode", "total"}
    parts = sum(seconds for stage, seconds in found.timings.items() if stage != "total")
    assert 0 < parts <= found.timings["total"]
