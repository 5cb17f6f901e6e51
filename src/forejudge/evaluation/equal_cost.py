"""The paper's table: what each way to choose reaches within the same cost. Pure functions.

A cost is a time in milliseconds, or work in TFLOP: whatever a curve was measured in.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from forejudge.errors import InvalidRequest
from forejudge.evaluation.intervals import outcome_averages, paired_difference
from forejudge.evaluation.metrics import FloatArray
from forejudge.evaluation.strategies import Outcomes, SelectionStrategy

BUDGET_NS = (2, 4, 9, 15)
"""The N of the reference verifier whose costs are the budgets (the paper's 4, 9 and 15, and a smaller one)."""


@dataclass(frozen=True)
class CostCurve:
    """What a search over so many candidates costs, encoded to decoded winner, at the N at which it was measured."""

    costs: Mapping[int, float]

    @classmethod
    def linear(cls, fixed: float, per_candidate: float) -> "CostCurve":
        """A cost once a prompt, and one for each candidate."""
        return cls({1: fixed + per_candidate, 2: fixed + 2 * per_candidate})

    def cost_at(self, n: int) -> float:
        """Between measured N on a straight line, beyond the last one on the line of the last two."""
        ns = sorted(self.costs)
        if n <= ns[-1] or len(ns) == 1:
            return float(np.interp(n, ns, [self.costs[each] for each in ns]))
        last, previous = ns[-1], ns[-2]
        slope = (self.costs[last] - self.costs[previous]) / (last - previous)
        return self.costs[last] + slope * (n - last)

    def max_n_within(self, budget: float, limit: int) -> int:
        """The largest n up to `limit` that costs no more than the budget; 0 where not even one does."""
        return max((n for n in range(1, limit + 1) if self.cost_at(n) <= budget), default=0)


@dataclass(frozen=True)
class CostedStrategy:
    """A way to choose with what it costs; `max_candidates` is the most candidates it may take."""

    name: str
    select: SelectionStrategy
    curve: CostCurve
    steps: int = 1
    max_candidates: int | None = None


def reference_budgets(reference: CostCurve, candidates: int) -> list[float]:
    """What the reference costs at the paper's N, as far as so many candidates were drawn."""
    return [reference.cost_at(n) for n in BUDGET_NS if n <= candidates]


def equal_cost_table(
    outcomes: Outcomes, strategies: Sequence[CostedStrategy], budgets: Sequence[float]
) -> list[dict[str, Any]]:
    """A row for each budget and each contender that fits into it: its N, cost, averages and tasks.

    The first contender is the reference: every other row says how far it is below, with p. Raises InvalidRequest for a
    budget into which not even the reference fits.
    """
    rows, reference = [], strategies[0]
    for budget in budgets:
        max_n_by_name = {strategy.name: _max_n(strategy, budget, outcomes) for strategy in strategies}
        if not max_n_by_name[reference.name]:
            raise InvalidRequest(f"a budget of {budget:g} holds no candidate of {reference.name}: raise it")
        reference_outcome_C = reference.select(outcomes, max_n_by_name[reference.name])
        for strategy in strategies:
            if n := max_n_by_name[strategy.name]:
                rows.append({"budget": budget, **_row(outcomes, strategy, n, reference_outcome_C)})
    return rows


def _max_n(strategy: CostedStrategy, budget: float, outcomes: Outcomes) -> int:
    return strategy.curve.max_n_within(budget, strategy.max_candidates or outcomes.candidates)


def _row(outcomes: Outcomes, strategy: CostedStrategy, n: int, reference_outcome_C: FloatArray) -> dict[str, Any]:
    outcome_C = strategy.select(outcomes, n)
    return {
        "strategy": strategy.name,
        "steps": strategy.steps,
        "n": n,
        "cost": strategy.curve.cost_at(n),
        **outcome_averages(outcomes, outcome_C),
        "reference_lead": paired_difference(outcomes, reference_outcome_C, outcome_C),
    }
