"""Latency estimates: measured once for each setting, as far as a budget needs it."""

import pytest
import torch

from forejudge.costs import CostModel
from forejudge.generators.base import SamplingParams
from forejudge.policies import Deadline, SearchState
from forejudge.types import IMAGE, latent_stage, prefix_stage
from tests.support.doubles import PROMPT, FakeClock, ScriptedGenerator, ScriptedVerifier

CUT = prefix_stage(2)


@pytest.fixture
def fake_time(monkeypatch: pytest.MonkeyPatch) -> FakeClock:
    fake = FakeClock()
    monkeypatch.setattr("forejudge.session.perf_counter", fake)
    return fake


@pytest.fixture
def generator(fake_time: FakeClock) -> ScriptedGenerator:
    """Each stage takes 10 ms, and 1 ms more for every candidate."""
    return ScriptedGenerator(before_advance=lambda count: fake_time.advance(0.010 + 0.001 * count))


def batches(generator: ScriptedGenerator) -> list[int]:
    return [count for stage, count in generator.advanced if stage == CUT]


def test_batch_sizes_double_up_to_the_largest(generator: ScriptedGenerator) -> None:
    costs = CostModel(generator, ScriptedVerifier({})).measure(PROMPT, SamplingParams(), max_batch_size=13, seconds=9.0)
    assert costs.batch == pytest.approx({1: 0.011, 2: 0.012, 4: 0.014, 8: 0.018})
    assert costs.finish == pytest.approx(0.022)  # to the latent, and to the image
    assert costs.min_seconds == pytest.approx(0.011 + 0.022)
    assert all(count == 1 for stage, count in generator.advanced if stage == IMAGE)


def test_the_first_round_warms_up_and_the_slower_of_the_others_counts(fake_time: FakeClock) -> None:
    seconds = iter([5.0, 5.0, 5.0, 0.2, 0.1, 0.1, 0.1, 0.3, 0.2])  # prefix, latent and image, three times
    generator = ScriptedGenerator(before_advance=lambda count: fake_time.advance(next(seconds)))
    costs = CostModel(generator, ScriptedVerifier({})).measure(PROMPT, SamplingParams(), max_batch_size=1, seconds=9.0)
    assert costs.min_seconds == pytest.approx(0.1 + 0.2)
    assert costs.batch == pytest.approx({1: 0.1 * 2.5})  # finishing took 0.2 and 0.5 seconds
    assert costs.finish == pytest.approx(0.5)


def test_batches_that_no_budget_allows_are_not_measured(generator: ScriptedGenerator) -> None:
    costs = CostModel(generator, ScriptedVerifier({})).measure(
        PROMPT, SamplingParams(), max_batch_size=64, seconds=0.013
    )
    assert list(costs.batch) == [1, 2, 4]


def test_finishing_in_one_step_more_is_measured_apart(generator: ScriptedGenerator) -> None:
    model = CostModel(generator, ScriptedVerifier({}))
    for refine, last in ((False, latent_stage()), (True, latent_stage(1))):
        before = len(generator.advanced)
        model.measure(PROMPT, SamplingParams(), max_batch_size=1, seconds=9.0, refine=refine)
        finished = {stage for stage, _ in generator.advanced[before:]}
        assert finished == {CUT, last, IMAGE}


def test_nothing_is_measured_twice(generator: ScriptedGenerator) -> None:
    model = CostModel(generator, ScriptedVerifier({}))
    first = model.measure(PROMPT, SamplingParams(), max_batch_size=4, seconds=9.0)
    rounds = len(generator.advanced)
    assert model.measure("another prompt", SamplingParams(), max_batch_size=4, seconds=9.0) == first
    assert model.measure(PROMPT, SamplingParams(), max_batch_size=2, seconds=9.0) == first
    assert len(generator.advanced) == rounds
    assert list(model.measure(PROMPT, SamplingParams(), max_batch_size=8, seconds=9.0).batch) == [1, 2, 4, 8]
    assert batches(generator)[-3:] == [8, 8, 8]
    model.measure(PROMPT, SamplingParams(steps=2), max_batch_size=1, seconds=9.0)
    assert batches(generator)[-3:] == [1, 1, 1]


def test_searches_update_the_slowdown(generator: ScriptedGenerator) -> None:
    model = CostModel(generator, ScriptedVerifier({}))
    quiet = model.measure(PROMPT, SamplingParams(), max_batch_size=4, seconds=9.0)
    model.learn(SamplingParams(), [(4, 0.028), (3, 7.0)], finish=0.033)  # twice as slow; 3 was never measured
    slower = model.measure(PROMPT, SamplingParams(), max_batch_size=4, seconds=9.0)
    assert slower.batch == pytest.approx({size: 2 * seconds for size, seconds in quiet.batch.items()})
    assert slower.finish == pytest.approx(2 * quiet.finish)
    assert slower.min_seconds == pytest.approx(quiet.min_seconds), "a slow moment makes no budget too small"


def test_after_a_slow_search_fast_ones_bring_large_batches_back(generator: ScriptedGenerator) -> None:
    """The searches between generate small batches alone."""
    model = CostModel(generator, ScriptedVerifier({}))

    def first_batch() -> int:
        costs = model.measure(PROMPT, SamplingParams(), max_batch_size=8, seconds=0.06)
        size = Deadline(60, costs).next_batch(SearchState(8))
        model.learn(SamplingParams(), [(size, 0.010 + 0.001 * size)], finish=0.022)
        return size

    assert first_batch() == 8
    model.learn(SamplingParams(), [(8, 4 * 0.018)], finish=0.022)
    sizes = [first_batch() for _ in range(9)]
    assert sizes[0] < 8
    assert sizes[-1] == 8


def test_a_budget_that_seems_too_small_is_measured_once_more(fake_time: FakeClock) -> None:
    slowness = [10.0]
    generator = ScriptedGenerator(before_advance=lambda count: fake_time.advance(0.01 * slowness[0]))
    model = CostModel(generator, ScriptedVerifier({}))
    assert model.measure(PROMPT, SamplingParams(), max_batch_size=1, seconds=0.1).min_seconds == pytest.approx(0.3)
    slowness[0] = 1.0
    assert model.measure(PROMPT, SamplingParams(), max_batch_size=1, seconds=0.1).min_seconds == pytest.approx(0.03)


def test_nothing_is_learned_without_a_measurement(generator: ScriptedGenerator) -> None:
    model = CostModel(generator, ScriptedVerifier({}))
    model.learn(SamplingParams(), [(1, 5.0)], finish=5.0)
    assert model.measure(PROMPT, SamplingParams(), max_batch_size=1, seconds=9.0).batch == pytest.approx({1: 0.011})


def test_sizes_that_do_not_fit_in_memory_are_left_out_for_good() -> None:
    tried: list[int] = []

    def only_two(count: int) -> None:
        tried.append(count)
        if count > 2:
            raise torch.OutOfMemoryError

    model = CostModel(ScriptedGenerator(only_two), ScriptedVerifier({}))
    costs = model.measure(PROMPT, SamplingParams(), max_batch_size=8, seconds=9.0)
    assert Deadline(60_000, costs).next_batch(SearchState(8)) == 2
    assert model.measure(PROMPT, SamplingParams(), max_batch_size=8, seconds=9.0) == costs
    assert tried.count(4) == 1
    assert 8 not in tried


def test_one_candidate_that_does_not_fit_is_an_error() -> None:
    def none_at_all(count: int) -> None:
        raise torch.OutOfMemoryError("no room")

    with pytest.raises(torch.OutOfMemoryError, match="no room"):
        CostModel(ScriptedGenerator(none_at_all), ScriptedVerifier({})).measure(PROMPT, SamplingParams(), 8, 9.0)
