"""The equal-cost table: the N that fits into a budget, and the lead of the first strategy."""

import numpy as np
import pytest

from forejudge.errors import InvalidRequest
from forejudge.evaluation.bootstrap import Difference
from forejudge.evaluation.equal_cost import CostCurve, CostedStrategy, equal_cost_table, reference_budgets
from forejudge.evaluation.strategies import best_score_strategy, oracle_strategy, random_strategy, verifier_scores
from tests.support.stand_in_outcomes import outcomes

OUTCOMES = outcomes()
KNOWS = CostedStrategy("knows", best_score_strategy(verifier_scores("knows")), CostCurve.linear(10, 5))
EXPENSIVE = CostedStrategy("contrary", best_score_strategy(verifier_scores("contrary")), CostCurve.linear(0, 14))
BASELINE = CostedStrategy(
    "1 step", lambda outcomes, n: random_strategy(outcomes, 1), CostCurve({1: 12.0}), max_candidates=1
)


def test_a_curve_interpolates_and_extrapolates() -> None:
    curve = CostCurve({1: 10.0, 2: 12.0, 8: 30.0})
    assert [curve.cost_at(n) for n in (1, 2, 5, 8, 10)] == [10, 12, 21, 30, 36]
    assert [curve.max_n_within(budget, 16) for budget in (9, 10, 21, 36, 1000)] == [0, 1, 5, 10, 16]
    assert CostCurve({1: 4.0}).cost_at(3) == 4


def test_budgets_are_the_costs_of_the_reference_at_the_papers_n() -> None:
    assert reference_budgets(KNOWS.curve, candidates=16) == [20, 30, 55, 85]
    assert reference_budgets(KNOWS.curve, candidates=4) == [20, 30]


def test_each_strategy_gets_the_n_that_fits() -> None:
    rows = {
        (row.budget, row.strategy): row for row in equal_cost_table(OUTCOMES, [KNOWS, EXPENSIVE, BASELINE], [20, 30])
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
    rows = equal_cost_table(OUTCOMES, [KNOWS, CostedStrategy("huge", oracle_strategy, CostCurve.linear(0, 100))], [20])
    assert [row.strategy for row in rows] == ["knows"]


def test_a_budget_without_room_for_the_reference_is_refused() -> None:
    with pytest.raises(
        InvalidRequest, match="the budget of 9 holds no candidate of knows, which costs 15: raise the budget"
    ):
        equal_cost_table(OUTCOMES, [KNOWS], [9])


def test_no_difference_is_not_significant() -> None:
    same = CostedStrategy("again", KNOWS.select, KNOWS.curve)
    row = equal_cost_table(OUTCOMES, [KNOWS, same], [30])[1]
    assert row.reference_lead == Difference(0, 0, 0, p=1)
    assert np.isfinite(row.micro.low)
