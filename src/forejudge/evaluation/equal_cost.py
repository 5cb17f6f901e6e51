"""The paper's table: what each way to choose reaches within the same cost. Pure functions.

A cost is a time in milliseconds, or work in TFLOP: whatever a curve was measured in.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from forejudge.errors import InvalidRequest
from forejudge.evaluation.intervals import averages_of, difference
from forejudge.evaluation.metrics import FloatArray
from forejudge.evaluation.strategies import Chooser, Outcomes

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

    def at(self, n: int) -> float:
        """Between measured N on a straight line, beyond the last one on the line of the last two."""
        ns = sorted(self.costs)
        if n <= ns[-1] or len(ns) == 1:
            return float(np.interp(n, ns, [self.costs[each] for each in ns]))
        last, before = ns[-1], ns[-2]
        slope = (self.costs[last] - self.costs[before]) / (last - before)
        return self.costs[last] + slope * (n - last)

    def most_within(self, budget: float, limit: int) -> int:
        """The largest n up to `limit` that costs no more than the budget; 0 where not even one does."""
        return max((n for n in range(1, limit + 1) if self.at(n) <= budget), default=0)


@dataclass(frozen=True)
class Contender:
    """A way to choose with what it costs; `largest` is the most candidates it may take."""

    name: str
    chooser: Chooser
    curve: CostCurve
    steps: int = 1
    largest: int | None = None


def budgets_of(reference: CostCurve, candidates: int) -> list[float]:
    """What the reference costs at the paper's N, as far as so many candidates were drawn."""
    return [reference.at(n) for n in BUDGET_NS if n <= candidates]


def equal_cost_table(
    outcomes: Outcomes, contenders: Sequence[Contender], budgets: Sequence[float]
) -> list[dict[str, Any]]:
    """A row for each budget and each contender that fits into it: its N, cost, averages and tasks.

    The first contender is the reference: every other row says how far it is below, with p. Raises InvalidRequest for a
    budget into which not even the reference fits.
    """
    rows, reference = [], contenders[0]
    for budget in budgets:
        fitting = {contender.name: _fitting(contender, budget, outcomes) for contender in contenders}
        if not fitting[reference.name]:
            raise InvalidRequest(f"a budget of {budget:g} holds no candidate of {reference.name}: raise it")
        of_reference = reference.chooser(outcomes, fitting[reference.name])
        for contender in contenders:
            if n := fitting[contender.name]:
                rows.append({"budget": budget, **_row(outcomes, contender, n, of_reference)})
    return rows


def _fitting(contender: Contender, budget: float, outcomes: Outcomes) -> int:
    return contender.curve.most_within(budget, contender.largest or outcomes.candidates)


def _row(outcomes: Outcomes, contender: Contender, n: int, of_reference: FloatArray) -> dict[str, Any]:
    outcome_C = contender.chooser(outcomes, n)
    return {
        "chosen_by": contender.name,
        "steps": contender.steps,
        "n": n,
        "cost": contender.curve.at(n),
        **averages_of(outcomes, outcome_C),
        "reference_ahead_by": difference(outcomes, of_reference, outcome_C),
    }
