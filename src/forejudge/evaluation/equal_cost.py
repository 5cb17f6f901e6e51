"""The equal-cost table of the paper: the accuracy each strategy reaches within one budget.

A cost is a time in milliseconds or a count of TFLOP, whichever a curve was measured in.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from forejudge.errors import InvalidRequest
from forejudge.evaluation.metrics import FloatArray
from forejudge.evaluation.report import EqualCostRow
from forejudge.evaluation.strategies import Outcomes, SelectionStrategy

BUDGET_NS = (2, 4, 9, 15)
"""N of the reference verifier whose costs are the default budgets (the paper's 4, 9 and 15, and a smaller one)."""


@dataclass(frozen=True)
class CostCurve:
    """Cost of a search from encoding to the decoded winner, at the N where it was measured."""

    costs: Mapping[int, float]

    @classmethod
    def linear(cls, fixed: float, per_candidate: float) -> "CostCurve":
        """Return the curve of a fixed cost per prompt and a cost per candidate."""
        return cls({1: fixed + per_candidate, 2: fixed + 2 * per_candidate})

    def cost_at(self, n: int) -> float:
        """Interpolate linearly between measured N; extrapolate from the last two."""
        ns = sorted(self.costs)
        if n <= ns[-1] or len(ns) == 1:
            return float(np.interp(n, ns, [self.costs[each] for each in ns]))
        last, previous = ns[-1], ns[-2]
        slope = (self.costs[last] - self.costs[previous]) / (last - previous)
        return self.costs[last] + slope * (n - last)

    def max_n_within(self, budget: float, limit: int) -> int:
        """Return the largest n up to `limit` within the budget; 0 where not even one candidate fits."""
        return max((n for n in range(1, limit + 1) if self.cost_at(n) <= budget), default=0)


@dataclass(frozen=True)
class CostedStrategy:
    """A selection strategy with its cost; it takes at most `max_candidates` candidates (None: all there are)."""

    name: str
    select: SelectionStrategy
    curve: CostCurve
    steps: int = 1
    max_candidates: int | None = None

    def max_n_within(self, budget: float, outcomes: Outcomes) -> int:
        """Return the largest N that fits into the budget; 0 for none."""
        return self.curve.max_n_within(budget, self.max_candidates or outcomes.candidates)


def reference_budgets(reference: CostCurve, candidates: int) -> list[float]:
    """Return the cost of the reference at each of `BUDGET_NS` for which there are enough candidates."""
    return [reference.cost_at(n) for n in BUDGET_NS if n <= candidates]


def equal_cost_table(
    outcomes: Outcomes, strategies: Sequence[CostedStrategy], budgets: Sequence[float]
) -> list[EqualCostRow]:
    """Compare strategies within each budget: one row for each that fits, with the N it affords.

    The first strategy is the reference for `reference_lead`. Raises InvalidRequest for a budget that doesn't even hold
    one candidate of the reference.
    """
    rows, reference = [], strategies[0]
    for budget in budgets:
        if not (reference_n := reference.max_n_within(budget, outcomes)):
            raise InvalidRequest(
                f"the budget of {budget:g} holds no candidate of {reference.name}, which costs "
                f"{reference.curve.cost_at(1):g}: raise the budget"
            )
        reference_outcome_C = reference.select(outcomes, reference_n)
        for strategy in strategies:
            if n := strategy.max_n_within(budget, outcomes):
                rows.append(_row(budget, strategy, n, outcomes, reference_outcome_C))
    return rows


def _row(
    budget: float, strategy: CostedStrategy, n: int, outcomes: Outcomes, reference_outcome_C: FloatArray
) -> EqualCostRow:
    outcome_C = strategy.select(outcomes, n)
    return EqualCostRow(
        **dict(outcomes.averages(outcome_C)),
        budget=budget,
        strategy=strategy.name,
        steps=strategy.steps,
        n=n,
        cost=strategy.curve.cost_at(n),
        reference_lead=outcomes.lead(reference_outcome_C, outcome_C),
    )
