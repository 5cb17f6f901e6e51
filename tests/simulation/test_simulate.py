"""Simulated searches, against what the same policies find and cost by hand."""

import numpy as np
import pytest

from forejudge.errors import InvalidRequest
from forejudge.evaluation.metrics import best_of_n
from forejudge.evaluation.report import FIXED
from forejudge.expected_improvement import fit_prior
from forejudge.options import SearchOptions
from forejudge.policies import AllPolicies, FixedN
from forejudge.simulation.report import FixedCurve, simulation_report
from forejudge.simulation.rules import CASCADE, UNTIL, Cascade, Grid, Rule
from forejudge.simulation.simulate import Simulator, UnitCosts, simulate_search
from forejudge.types import Verdict
from tests.support.recordings import COSTS, PRIOR, recording

LATE = [[0.2, 0.6, 0.9, 0.4], [0.95, 0.1, 0.2, 0.3], [0.3, 0.3, 0.2, 0.1]]
CORRECT = [[0, 0, 1, 0], [1, 0, 0, 0], [0, 1, 0, 0]]
SECOND = [[1, 1, 0, 1], [0, 0, 0, 0], [1, 0, 0, 0]]
EARLY = [[0.9, 0.8, 0.1, 0.2], [0.4, 0.5, 0.6, 0.7], [0.1, 0.2, 0.3, 0.4]]
MADE_UP = recording(LATE, CORRECT, SECOND, EARLY)


def simulator(costs: UnitCosts | None = None) -> Simulator:
    return Simulator(MADE_UP, "late", costs or UnitCosts.in_candidates(), PRIOR)


def rule(batch_size: int = 2, **options: float) -> Rule:
    return Rule("", SearchOptions.model_validate({"max_n": 4, **options}), batch_size)


@pytest.mark.parametrize("n", [1, 2, 3, 4])
def test_fixed_finds_what_best_of_n_finds_at_a_cost_of_n(n: int) -> None:
    found, outcomes = simulator().run(rule(n=n)), MADE_UP.outcomes
    expected = best_of_n(outcomes.correct_CSN[:, 0], outcomes.score_CSN["late"][:, 0], n)
    assert found.outcome_C.tolist() == expected.tolist()
    assert found.cost_CS.tolist() == [[n]] * 3


def test_until_pays_for_candidates_behind_the_one_that_ends_it() -> None:
    found = simulator().run(rule(until=0.9))
    assert found.used_CS[:, 0].tolist() == [3, 1, 4]
    assert found.cost_CS[:, 0].tolist() == [4, 2, 4]
    assert found.outcome_C.tolist() == [1, 1, 0]


@pytest.mark.parametrize(("price", "used"), [(0, [4, 4, 4]), (0.01, [4, 2, 4]), (1, [2, 2, 2])])
def test_a_price_ends_a_search_by_its_verdicts(price: float, used: list[int]) -> None:
    assert simulator().run(rule(price=price)).used_CS[:, 0].tolist() == used


def test_an_unsure_winner_takes_the_second_step_that_was_recorded() -> None:
    found = simulator().run(rule(n=2, refine_below=0.9))
    assert found.refined_CS[:, 0].tolist() == [True, False, True]
    assert found.outcome_C.tolist() == [1, 1, 1], "0.6 and 0.3 are of candidates 1 and 0"
    assert found.cost_CS[:, 0] == pytest.approx([3.41, 2, 3.41])


def test_a_second_step_that_was_not_recorded_is_refused() -> None:
    with pytest.raises(InvalidRequest, match=r"a second step .* run `forejudge eval` with --record-for simulate"):
        Simulator(recording(LATE, CORRECT), "late", UnitCosts.in_candidates(), PRIOR).run(rule(n=2, refine_below=0.9))


def test_second_steps_of_other_candidates_than_winners_may_be_missing() -> None:
    some = [[np.nan, 1, np.nan, np.nan], [np.nan] * 4, [1, np.nan, np.nan, np.nan]]
    found = Simulator(recording(LATE, CORRECT, some), "late", UnitCosts.in_candidates(), PRIOR)
    assert found.run(rule(n=2, refine_below=0.9)).outcome_C.tolist() == [1, 1, 1]
    with pytest.raises(InvalidRequest, match="a second step"):
        found.run(rule(n=2, refine_below=0.96))


def test_milliseconds_are_those_of_prompt_batches_finish_and_second_step() -> None:
    costs = UnitCosts.in_milliseconds(COSTS, "late")
    assert simulator(costs).run(rule(n=3, batch_size=4)).cost_CS[:, 0].tolist() == [5 + 20 + 20] * 3
    assert simulator(costs).run(rule(n=3, batch_size=2)).cost_CS[:, 0].tolist() == [5 + 15 + 10 + 20] * 3
    refined = simulator(costs).run(rule(n=1, refine_below=0.9)).cost_CS[:, 0].tolist()
    assert refined == [5 + 10 + 20 + 12, 5 + 10 + 20, 5 + 10 + 20 + 12]


@pytest.mark.parametrize("options", [{}, {"price": 0}, {"price": 0.02}, {"refine_below": 0.9}])
@pytest.mark.parametrize("budget_ms", [55, 60, 80])
def test_no_deadline_is_exceeded(budget_ms: float, options: dict[str, float]) -> None:
    costs = UnitCosts.in_milliseconds(COSTS, "late")
    found = simulator(costs).run(rule(budget_ms=budget_ms, batch_size=4, **options))
    assert (found.cost_CS <= budget_ms).all()
    assert (found.used_CS >= 1).all()


def test_a_deadline_needs_milliseconds() -> None:
    with pytest.raises(InvalidRequest, match="give --unit ms"):
        simulator().run(rule(budget_ms=100))


def test_a_search_ends_where_the_recording_ends() -> None:
    verdicts = [Verdict(0.0, probability=0.5)] * 3
    found = simulate_search(AllPolicies((FixedN(10),)), verdicts, UnitCosts.in_candidates(), 2)
    assert (found.used, found.cost) == (3, 3)


def test_a_cascade_scores_all_early_and_the_better_half_again() -> None:
    """Two of four continue: 4 x 40 + 2 x (100 - 30) operations, in units of 100."""
    found = simulator().run_cascade(Cascade("early", "late", 4))
    assert found.outcome_C.tolist() == [0, 0, 0], "the winners are candidates 1, 3 and 2"
    assert found.cost_CS[:, 0] == pytest.approx([3.0, 3.0, 3.0])
    assert simulator().run_cascade(Cascade("late", "late", 4)).outcome_C.tolist() == [1, 1, 0]


def test_fixed_between_two_n_is_a_mixture_of_both() -> None:
    curve = FixedCurve.of(simulator())
    assert curve.outcome_at(2.75) == pytest.approx([0.75, 1, 0])
    assert curve.outcome_at(0.5).tolist() == curve.outcome_at(1).tolist() == [0, 1, 0]
    assert curve.outcome_at(9).tolist() == [1, 1, 0]
    assert [curve.same_quality_n(quality) for quality in (0.3, 2 / 3, 1)] == [1, 3, None]


def test_a_report_compares_each_rule_with_fixed_at_its_mean_cost() -> None:
    grid = Grid(4, ns=(1, 2, 8), untils=(0.9,), prices=(), refine_below=(0, 0.9))
    report = simulation_report({}, MADE_UP, "late", UnitCosts.in_candidates(), grid)
    assert [(each.policy, each.options) for each in report.rules] == [
        (FIXED, {"n": 1}), (FIXED, {"n": 2}), (UNTIL, {"until": 0.9}),
        (FIXED, {"n": 1, "refine_below": 0.9}), (FIXED, {"n": 2, "refine_below": 0.9}),
        (UNTIL, {"until": 0.9, "refine_below": 0.9}),
        (CASCADE, {"early": "early", "n": 2}),
    ]  # fmt: skip
    until = report.rules[2]
    assert until.mean_cost == pytest.approx(10 / 3, abs=1e-4)
    assert (until.accuracy.micro.estimate, until.fixed_accuracy, until.lead.estimate) == (0.6667, 0.6667, 0.0)
    assert (until.candidates.p50, until.candidates.mean) == (3, 2.6667)
    refined = report.rules[4]
    assert (refined.second_steps, refined.accuracy.micro.estimate, refined.same_quality_n) == (0.6667, 1.0, None)
    assert refined.task_leads["colors"].estimate == 0
    assert [point.accuracy for point in report.fixed] == [0.3333, 0.3333, 0.6667, 0.6667]
    assert report.prior == PRIOR


def test_a_verifier_without_a_prior_has_one_fitted_on_the_recording() -> None:
    assert MADE_UP.prior("early") == fit_prior(EARLY)
    assert np.isfinite(MADE_UP.prior("early").mean)


def test_orders_begin_at_other_candidates() -> None:
    """Two orders of four candidates: 0 1 2 3 and 2 3 0 1."""
    reordered = MADE_UP.in_orders(2).outcomes
    assert reordered.probability_CSN["late"][0].tolist() == [[0.2, 0.6, 0.9, 0.4], [0.9, 0.4, 0.2, 0.6]]
    assert reordered.correct_CSN[0].tolist() == [[False, False, True, False], [True, False, False, False]]
    grid = Grid(4, ns=(1,), untils=(), prices=(), refine_below=(0,))
    (fixed,) = simulation_report({}, MADE_UP, "late", UnitCosts.in_candidates(), grid, orders=2).rules
    assert fixed.accuracy.micro.estimate == pytest.approx(2 / 6, abs=1e-4), "of candidates 0 and 2 of three cases"


def test_a_batch_beyond_the_largest_measured_one_goes_in_several() -> None:
    costs = UnitCosts("milliseconds", {1: 10.0, 2: 18.0, 4: 34.0})
    assert [costs.of_batch(size) for size in (1, 3, 4, 5, 8, 11)] == [10, 26, 34, 44, 68, 94]
