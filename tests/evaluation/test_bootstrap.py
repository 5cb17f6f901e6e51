from dataclasses import asdict

import numpy as np
import pytest
from numpy.typing import NDArray
from pydantic import TypeAdapter, ValidationError

from forejudge.evaluation.bootstrap import (
    Difference,
    FloatArray,
    Interval,
    Lead,
    Share,
    UncertainOutcome,
    bootstrap_averages,
    bootstrap_difference,
    bootstrap_interval,
    bootstrap_mean,
    paired_difference,
)
from forejudge.evaluation.metrics import oracle_gap_closed
from forejudge.prompts import geneval

PROMPTS = ["a", "a", "b", "c", "d", "e"]
TASKS = ["colors"] * 4 + ["single_object"] * 2


def test_micro_is_over_cases_and_macro_over_tasks() -> None:
    averages = bootstrap_averages(PROMPTS, TASKS, [1, 1, 1, 0, 0, 0])
    assert (averages.micro.estimate, averages.macro.estimate) == (0.5, 0.375)
    assert {task: figure.estimate for task, figure in averages.tasks.items()} == {"single_object": 0.0, "colors": 0.75}


def test_averages_over_cases_and_over_tasks() -> None:
    tasks = ["colors", "colors", "single_object", "single_object", "single_object"]
    averages = bootstrap_averages(list("abcde"), tasks, [1.0, 0.0, 0.5, 1.0, 1.0])
    assert averages.micro.estimate == pytest.approx(0.7)
    assert averages.macro.estimate == pytest.approx((2.5 / 3 + 0.5) / 2, abs=1e-4)
    assert averages.tasks["single_object"].estimate == pytest.approx(2.5 / 3, abs=1e-4)


def test_tasks_come_in_the_order_of_the_paper() -> None:
    assert geneval.TASKS == ("single_object", "two_object", "counting", "colors", "position", "color_attr")
    averages = bootstrap_averages(list("abcdef"), geneval.TASKS[::-1], np.ones(6))
    assert tuple(averages.tasks) == geneval.TASKS


def test_every_figure_lies_in_its_interval() -> None:
    averages = bootstrap_averages(PROMPTS, TASKS, [1, 1, 1, 0, 1, 0])
    for figure in (averages.micro, averages.macro, *averages.tasks.values()):
        assert 0 <= figure.low <= figure.estimate <= figure.high <= 1


def test_figures_are_the_same_each_time() -> None:
    outcome = [1, 0, 1, 0, 1, 0]
    assert bootstrap_averages(PROMPTS, TASKS, outcome) == bootstrap_averages(PROMPTS, TASKS, outcome)


def test_a_task_without_cases_has_no_figure() -> None:
    averages = bootstrap_averages(["a"], ["position"], [1.0])
    assert averages.tasks == {"position": Interval(1, 1, 1)}


def mean(values: FloatArray) -> FloatArray:
    return values


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def clustered(prompts: int, repeats: int, seed: int) -> tuple[NDArray[np.intp], FloatArray]:
    """Prompts that are easy or hard, and cases that follow them."""
    generator = rng(seed)
    chance = generator.beta(1.5, 1.0, size=prompts)
    ids = np.repeat(np.arange(prompts), repeats)
    return ids, (generator.random(len(ids)) < chance[ids]).astype(float)


def by_hand(ids: NDArray[np.intp], values: FloatArray, resamples: int, seed: int) -> FloatArray:
    """The means of two-level resamples, drawn one case at a time."""
    generator = rng(seed)
    clusters = [values[ids == prompt] for prompt in np.unique(ids)]
    means = []
    for _ in range(resamples):
        drawn = [clusters[i] for i in generator.integers(len(clusters), size=len(clusters))]
        cases = [generator.choice(cluster, size=len(cluster)) for cluster in drawn]
        means.append(np.concatenate(cases).mean())
    return np.array(means)


def test_the_interval_is_that_of_resampling_case_by_case():
    generator = rng(5)
    ids = np.repeat(np.arange(12), generator.integers(1, 9, size=12))
    generator.shuffle(ids)
    values = ids % 3 + generator.normal(size=len(ids))
    interval = bootstrap_interval(mean, ids, values, rng=rng(1), resamples=20_000)
    draws = by_hand(ids, values, resamples=4000, seed=2)
    assert interval.estimate == pytest.approx(values.mean())
    tolerance = 0.1 * draws.std()
    assert interval.low == pytest.approx(np.quantile(draws, 0.025), abs=tolerance)
    assert interval.high == pytest.approx(np.quantile(draws, 0.975), abs=tolerance)


def test_a_95_percent_interval_holds_the_truth_about_as_often():
    truth = 1.5 / 2.5
    held = []
    for seed in range(300):
        ids, values = clustered(prompts=40, repeats=5, seed=seed)
        interval = bootstrap_interval(mean, ids, values, rng=rng(seed), resamples=400)
        held.append(interval.low <= truth <= interval.high)
    assert 0.92 <= np.mean(held) <= 0.99


def test_cases_of_one_prompt_do_not_count_as_independent():
    ids, values = clustered(prompts=20, repeats=20, seed=0)
    together = bootstrap_interval(mean, ids, values, rng=rng())
    apart = bootstrap_interval(mean, np.arange(len(ids)), values, rng=rng())
    assert width(together) > 1.5 * width(apart)


def width(interval: Interval) -> float:
    return interval.high - interval.low


def test_a_difference_is_paired():
    ids, hard = clustered(prompts=40, repeats=5, seed=1)
    better = hard.copy()
    better[np.flatnonzero(hard == 0)[:10]] = 1
    gain = bootstrap_interval(np.subtract, ids, better, hard, rng=rng())
    assert gain.estimate == pytest.approx(10 / 200)
    assert 0 <= gain.low < gain.estimate < gain.high
    assert width(gain) < 0.5 * width(bootstrap_interval(mean, ids, hard, rng=rng()))
    assert bootstrap_interval(np.subtract, ids, hard, hard, rng=rng()) == Interval(0, 0, 0)


@pytest.mark.parametrize("seed", range(5))
def test_a_resample_without_difference_counts_on_both_sides_however_it_is_rounded(seed: int):
    """Fifths sum to a little more or less than nothing; the same figures as whole numbers to nothing."""
    one_C = rng(seed).integers(0, 6, 24)
    other_C = rng(seed + 100).permutation(one_C)
    exact = bootstrap_difference(np.arange(24), one_C, other_C, rng=rng())
    assert bootstrap_difference(np.arange(24), one_C / 5, other_C / 5, rng=rng()).p == exact.p


def test_p_is_two_sided_and_that_of_the_normal_approximation() -> None:
    """220 of 400 cases are ahead and 180 behind: z = 0.1 / sqrt(0.99 / 400) = 2.01, so p = 0.044 on both sides."""
    one_C = np.repeat([1.0, 0.0], [220, 180])
    ahead = bootstrap_difference(np.arange(400), one_C, 1 - one_C, rng=rng())
    behind = bootstrap_difference(np.arange(400), 1 - one_C, one_C, rng=rng())
    assert ahead.estimate == pytest.approx(0.1)
    assert behind.estimate == pytest.approx(-0.1)
    assert ahead.p == behind.p == pytest.approx(0.044, abs=0.012)


@pytest.mark.parametrize(("one", "other"), [(1.0, 0.0), (0.0, 1.0)])
def test_the_least_p_counts_no_resample_of_either_side(one: float, other: float) -> None:
    certain = bootstrap_difference(np.arange(5), np.full(5, one), np.full(5, other), rng=rng(), resamples=199)
    assert certain.p == 2 / 200
    assert bootstrap_difference(np.arange(5), np.ones(5), np.ones(5), rng=rng(), resamples=199).p == 1


def test_each_resample_has_its_own_variant() -> None:
    """Half of the resamples take a variant that is always wrong, the others one that is always right."""
    variants_VC, resampled_R = np.array([[0.0] * 6, [1.0] * 6]), np.arange(100) % 2
    outcome = UncertainOutcome(variants_VC, 1, resampled_R)
    interval = bootstrap_interval(mean, PROMPTS, outcome, rng=rng(), resamples=100)
    assert interval == Interval(1, 0, 1)
    lead = bootstrap_difference(PROMPTS, outcome, np.zeros(6), rng=rng(), resamples=100)
    assert (lead.estimate, lead.low, lead.high, lead.p) == (1, 0, 1, 1)
    macro = bootstrap_interval(mean, PROMPTS, outcome, rng=rng(), tasks=TASKS, resamples=100)
    assert macro == Interval(1, 0, 1)
    three = outcome.of_cases(np.arange(6) < 3)
    assert three.variants_VC.tolist() == [[0, 0, 0], [1, 1, 1]]


def test_oracle_gap_closed_is_a_ratio_of_means():
    ids = np.repeat(np.arange(30), 4)
    first = (rng(3).random(120) < 0.5).astype(float)
    oracle = np.maximum(first, rng(4).random(120) < 0.8)
    verifier = np.where(rng(5).random(120) < 0.6, oracle, first)
    closed = bootstrap_interval(oracle_gap_closed, ids, verifier, first, oracle, rng=rng())
    expected = (verifier.mean() - first.mean()) / (oracle.mean() - first.mean())
    assert closed.estimate == pytest.approx(expected)
    assert 0 < closed.low < expected < closed.high < 1
    whole = bootstrap_interval(oracle_gap_closed, ids, oracle, first, oracle, rng=rng())
    assert whole == Interval(1, 1, 1)


def test_a_ratio_that_is_undefined_in_some_resamples_leaves_those_out():
    ids = np.arange(3)
    first, oracle = np.array([1.0, 1.0, 0.0]), np.ones(3)
    closed = bootstrap_interval(oracle_gap_closed, ids, oracle, first, oracle, rng=rng())
    assert closed == Interval(1, 1, 1)


def test_a_ratio_that_is_never_defined_has_no_interval():
    same = np.ones(6)
    closed = bootstrap_interval(oracle_gap_closed, np.arange(6), same, same, same, rng=rng())
    assert np.isnan([closed.estimate, closed.low, closed.high]).all()


@pytest.mark.parametrize("value", [0.0, 1.0, 0.7])
def test_equal_values_give_an_interval_of_no_width(value: float):
    ids = np.repeat(np.arange(5), 3)
    interval = bootstrap_interval(mean, ids, np.full(15, value), rng=rng())
    assert [interval.estimate, interval.low, interval.high] == pytest.approx([value] * 3)


def test_one_prompt_is_resampled_by_its_cases():
    values = np.array([0.0, 1.0] * 10)
    one_prompt = bootstrap_interval(mean, ["a"] * 20, values, rng=rng(), resamples=20_000)
    each_its_own = bootstrap_interval(mean, np.arange(20), values, rng=rng(), resamples=20_000)
    assert one_prompt.estimate == 0.5
    assert one_prompt.low == pytest.approx(each_its_own.low, abs=0.051)
    assert one_prompt.low < 0.5 < one_prompt.high


def test_a_single_case_gives_an_interval_of_no_width():
    assert bootstrap_interval(mean, ["a"], [0.25], rng=rng()) == Interval(0.25, 0.25, 0.25)


def test_a_macro_interval_weighs_tasks_alike_and_keeps_prompts_in_their_task():
    tasks = np.array(["colors"] * 30 + ["counting"] * 10)
    ids, values = np.arange(40), np.array([1.0] * 30 + [0.0] * 10)
    macro = bootstrap_interval(mean, ids, values, rng=rng(), tasks=tasks)
    assert macro == Interval(0.5, 0.5, 0.5)
    micro = bootstrap_interval(mean, ids, values, rng=rng())
    assert micro.estimate == 0.75
    assert micro.low < 0.7 < 0.8 < micro.high


def test_the_same_seed_gives_the_same_interval_whatever_the_order_of_calls():
    ids, values = clustered(prompts=10, repeats=4, seed=2)
    once = bootstrap_interval(mean, ids, values, rng=rng(7))
    bootstrap_interval(mean, ids, values, rng=rng(8))
    assert bootstrap_interval(mean, ids, values, rng=rng(7)) == once
    assert bootstrap_interval(mean, ids, values, rng=rng(8)) != once


def test_cases_of_a_prompt_are_drawn_in_their_order_wherever_they_stand():
    """A sort that is not stable would order them by the processor, and the digits of figures with them."""
    ids, values = np.arange(60) % 3, rng(5).random(60)
    in_order = np.argsort(ids, kind="stable")
    mixed, sorted_cases = (
        bootstrap_interval(mean, ids[rows], values[rows], rng=rng(), resamples=200)
        for rows in (np.arange(60), in_order)
    )
    assert asdict(mixed) == pytest.approx(asdict(sorted_cases), rel=1e-12)


def test_a_higher_level_is_wider():
    ids, values = clustered(prompts=20, repeats=4, seed=3)
    narrow = bootstrap_interval(mean, ids, values, rng=rng(), level=0.5)
    wide = bootstrap_interval(mean, ids, values, rng=rng(), level=0.99)
    assert wide.low < narrow.low < narrow.high < wide.high


def test_reported_figures_are_of_one_random_state_and_have_four_digits():
    ids, one_C, other_C = np.arange(30), *rng(4).random((2, 30))
    exact = bootstrap_interval(mean, ids, one_C, rng=rng(0))
    assert asdict(bootstrap_mean(ids, one_C)) == {name: round(value, 4) for name, value in asdict(exact).items()}
    lead = bootstrap_difference(ids, one_C, other_C, rng=rng(0))
    assert asdict(paired_difference(ids, one_C, other_C)) == {
        name: round(value, 4) for name, value in asdict(lead).items()
    }


@pytest.mark.parametrize("lead", [(-1, -1, -1, 1), (1, 1, 1, 0.001), (0.2, 0.2, 0.2, 1)])
def test_leads_at_the_ends_of_their_range_are_accepted(lead: tuple[float, float, float, float]):
    difference = Difference(*lead[:3], p=lead[3])
    assert TypeAdapter(Lead).validate_python(difference) == difference


@pytest.mark.parametrize(
    "lead",
    [
        (0, -1.5, 0, 0.5),
        (0, 0, 1.5, 0.5),
        (0, 0.5, -0.5, 0.5),
        (-1.5, 0, 0, 0.5),
        (1.5, 0, 0, 0.5),
        (0, 0, 0, 0),
        (0, 0, 0, 1.5),
    ],
)
def test_leads_out_of_range_are_refused(lead: tuple[float, float, float, float]):
    with pytest.raises(ValidationError, match="expected a lead and its interval"):
        TypeAdapter(Lead).validate_python(Difference(*lead[:3], p=lead[3]))


@pytest.mark.parametrize("share", [(1.5, 0, 1), (0.5, -0.1, 1), (0.5, 0, 1.1)])
def test_shares_out_of_range_are_refused(share: tuple[float, float, float]):
    with pytest.raises(ValidationError, match="expected a share and its interval"):
        TypeAdapter(Share).validate_python(Interval(*share))
