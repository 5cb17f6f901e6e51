"""The equal-cost table: the N that fits into a budget, and the lead of the first strategy."""

from dataclasses import replace

import numpy as np
import pytest

from forejudge.errors import InvalidRequest
from forejudge.evaluation.bootstrap import RESAMPLES, Difference
from forejudge.evaluation.equal_cost import (
    CostCurve,
    CostedStrategy,
    competitor_table,
    equal_cost_table,
    reference_budgets,
    resampled_rounds,
)
from forejudge.evaluation.metrics import FloatArray
from forejudge.evaluation.strategies import best_score_strategy, oracle_strategy, random_strategy, verifier_scores
from tests.support.stand_in_outcomes import outcomes

OUTCOMES = outcomes()
KNOWS = CostedStrategy("knows", best_score_strategy(verifier_scores("knows")), CostCurve.linear(10, 5))
EXPENSIVE = CostedStrategy("contrary", best_score_strategy(verifier_scores("contrary")), CostCurve.linear(0, 14))
BASELINE = CostedStrategy(
    "1 step", lambda outcomes, n: random_strategy(outcomes, 1), CostCurve.of({1: 12.0}), max_candidates=1
)


def budgets(*costs: float) -> list[FloatArray]:
    """Return budgets that are known, not estimated."""
    return [np.array([cost], np.float64) for cost in costs]


def test_a_curve_interpolates_and_extrapolates() -> None:
    curve = CostCurve.of({1: 10.0, 2: 12.0, 8: 30.0})
    assert [curve.cost_at(n) for n in (1, 2, 5, 8, 10)] == [10, 12, 21, 30, 36]
    assert [curve.max_n_within(budget, 16)[0] for budget in budgets(9, 10, 21, 36, 1000)] == [0, 1, 5, 10, 16]
    assert CostCurve.of({1: 4.0}).cost_at(3) == 4


@pytest.mark.parametrize(
    ("measured", "fitted"),
    [
        ([10, 20, 30], [10, 20, 30]),
        ([12, 10, 30], [11, 11, 30]),
        ([10, 30, 20], [10, 25, 25]),
        ([30, 20, 10], [20, 20, 20]),
        ([10, 22, 20, 18], [10, 20, 20, 20]),
    ],
)
def test_a_curve_never_falls(measured: list[float], fitted: list[float]) -> None:
    """Violators are pooled to their mean, as isotonic regression does."""
    curve = CostCurve.of(dict(enumerate(measured, start=1)))
    assert [curve.cost_at(n) for n in range(1, len(measured) + 1)] == pytest.approx(fitted)


def test_versions_of_a_curve_draw_the_same_rounds() -> None:
    drawn_VK = np.array([[0, 1, 2], [0, 0, 1], [2, 2, 2]])
    curve = CostCurve.from_rounds({2: [20, 40, 60], 1: [10, 30, 20]}, drawn_VK)
    assert curve.costs_at(1).tolist() == [20, 10, 20]
    assert curve.costs_at(2).tolist() == [40, 20, 60]
    assert curve.max_n_within(np.array([45.0]), 16).tolist() == [2, 4, 1]


def test_the_first_version_of_the_rounds_is_the_estimate() -> None:
    drawn_VK = resampled_rounds(5)
    assert drawn_VK.shape == (RESAMPLES + 1, 5)
    assert drawn_VK[0].tolist() == [0, 1, 2, 3, 4]
    assert (drawn_VK[1:] != drawn_VK[0]).any(axis=1).mean() > 0.95
    assert set(drawn_VK.ravel()) == set(range(5))


def test_intervals_include_the_uncertainty_of_the_timing() -> None:
    """A competitor whose second candidate fits into the budget in half of the rounds."""
    rounds = 21
    reference = CostCurve.from_rounds({1: [10.0] * rounds, 2: [20.0] * rounds}, resampled_rounds(rounds))
    competitor_ms = [19.0] * 11 + [21.0] * 10
    competitor = CostCurve.from_rounds({1: [10.0] * rounds, 2: competitor_ms}, resampled_rounds(rounds))
    known = CostCurve.of({1: 10, 2: 19})
    select = best_score_strategy(verifier_scores("knows"))
    uncertain, certain = (
        equal_cost_table(
            OUTCOMES, [CostedStrategy("knows", select, reference), CostedStrategy("other", select, curve)], budgets(20)
        )[1]
        for curve in (competitor, known)
    )
    assert (uncertain.n, uncertain.n_interval) == (2, (1, 2))
    assert (certain.n, certain.n_interval) == (2, (2, 2))
    assert uncertain.micro.estimate == certain.micro.estimate
    assert uncertain.micro.low < certain.micro.low - 0.1, "with one candidate fewer are right"
    assert all(uncertain.tasks[task].low <= certain.tasks[task].low for task in certain.tasks)
    assert uncertain.macro.low < certain.macro.low - 0.1
    assert (certain.reference_lead.low, certain.reference_lead.high) == (0, 0)
    assert uncertain.reference_lead.high > 0.1, "the lead that the reference may have"


def test_a_competitor_is_met_at_its_own_n() -> None:
    rows = {(row.competitor, row.n): row for row in competitor_table(OUTCOMES, [KNOWS, EXPENSIVE, BASELINE])}
    assert {key: row.reference_n for key, row in rows.items()} == {("contrary", 2): 3, ("contrary", 4): 4}
    row = rows["contrary", 2]
    assert (row.cost, row.reference, row.reference_n_interval) == (28, "knows", (3, 3))
    knows, contrary = oracle_strategy(OUTCOMES, 3).mean(), EXPENSIVE.select(OUTCOMES, 2).mean()
    assert row.accuracy.estimate == pytest.approx(contrary, abs=1e-4)
    assert row.reference_accuracy.estimate == pytest.approx(knows, abs=1e-4)
    assert row.lead.estimate == pytest.approx(knows - contrary, abs=1e-4)


def test_one_image_is_met_at_its_own_cost() -> None:
    (row,) = competitor_table(OUTCOMES, [KNOWS, replace(BASELINE, curve=CostCurve.of({1: 21.0}))])
    assert (row.competitor, row.n, row.reference_n) == ("1 step", 1, 2)


def test_budgets_are_the_costs_of_the_reference_at_the_papers_n() -> None:
    assert [budget_V.tolist() for budget_V in reference_budgets(KNOWS.curve, 16)] == [[20], [30], [55], [85]]
    assert [budget_V.tolist() for budget_V in reference_budgets(KNOWS.curve, 4)] == [[20], [30]]


def test_each_strategy_gets_the_n_that_fits() -> None:
    rows = {
        (row.budget, row.strategy): row
        for row in equal_cost_table(OUTCOMES, [KNOWS, EXPENSIVE, BASELINE], budgets(20, 30))
    }
    assert {key: row.n for key, row in rows.items()} == {
        (20, "knows"): 2,
        (20, "contrary"): 1,
        (20, "1 step"): 1,
        (30, "knows"): 4,
        (30, "contrary"): 2,
        (30, "1 step"): 1,
    }
    assert rows[30, "knows"].micro.estimate == pytest.approx(oracle_strategy(OUTCOMES, 4).mean(), abs=1e-4)
    assert rows[30, "knows"].cost == 30
    lead = rows[30, "contrary"].reference_lead
    expected = (
        oracle_strategy(OUTCOMES, 4).mean() - best_score_strategy(verifier_scores("contrary"))(OUTCOMES, 2).mean()
    )
    assert lead.estimate == pytest.approx(expected, abs=1e-4)
    assert lead.low > 0
    assert lead.p == pytest.approx(2 / 2001, abs=1e-4)
    assert rows[30, "knows"].reference_lead.p == 1


def test_a_strategy_that_does_not_fit_has_no_row() -> None:
    rows = equal_cost_table(
        OUTCOMES, [KNOWS, CostedStrategy("huge", oracle_strategy, CostCurve.linear(0, 100))], budgets(20)
    )
    assert [row.strategy for row in rows] == ["knows"]


def test_a_budget_without_room_for_the_reference_is_refused() -> None:
    with pytest.raises(
        InvalidRequest, match="the budget of 9 holds no candidate of knows, which costs 15: raise the budget"
    ):
        equal_cost_table(OUTCOMES, [KNOWS], budgets(9))


def test_no_difference_is_not_significant() -> None:
    same = CostedStrategy("again", KNOWS.select, KNOWS.curve)
    row = equal_cost_table(OUTCOMES, [KNOWS, same], budgets(30))[1]
    assert row.reference_lead == Difference(0, 0, 0, p=1)
    assert np.isfinite(row.micro.low)
