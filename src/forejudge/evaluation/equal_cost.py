"""The equal-cost table of the paper: the accuracy each strategy reaches within one budget.

A cost is a time in milliseconds or a count of TFLOP, whichever a curve was measured in. A time is an estimate, so the N
that fits into a budget is one too: intervals draw the rounds of the timing anew, jointly for all strategies, as they
draw prompts.

Shapes: C cases, V versions of a cost (the estimate first, then one for each resample, or the estimate alone), P
measured N, K rounds.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from forejudge.errors import InvalidRequest
from forejudge.evaluation.bootstrap import RESAMPLES, UncertainOutcome, bootstrap_mean
from forejudge.evaluation.metrics import FloatArray
from forejudge.evaluation.report import CompetitorRow, EqualCostRow
from forejudge.evaluation.strategies import Outcomes, SelectionStrategy

BUDGET_NS = (2, 4, 9, 15)
"""N of the reference verifier whose costs are the default budgets (the paper's 4, 9 and 15, and a smaller one)."""

IntArray = NDArray[np.intp]


def resampled_rounds(rounds: int) -> IntArray:
    """Draw the rounds of each version, (V, K): all rounds once for the estimate, with replacement for resamples."""
    drawn = np.random.default_rng(1).integers(rounds, size=(RESAMPLES, rounds))  # not the state that draws prompts
    return np.concatenate([np.arange(rounds)[None], drawn])


@dataclass(frozen=True)
class CostCurve:
    """Cost of a search from encoding to the decoded winner: `costs_VP` at the N where it was measured, rising.

    More candidates never cost less: costs are fitted by isotonic regression before they are read.
    """

    ns: tuple[int, ...]
    costs_VP: FloatArray

    @classmethod
    def of(cls, costs: Mapping[int, float]) -> "CostCurve":
        """Return the curve of known costs by N."""
        ns = sorted(costs)
        return cls(tuple(ns), np.array([[costs[n] for n in ns]], np.float64))

    @classmethod
    def from_rounds(cls, rounds: Mapping[int, Sequence[float]], drawn_VK: IntArray) -> "CostCurve":
        """Return the curve of the medians over rounds, `drawn_VK` of which make each version."""
        ns = sorted(rounds)
        medians = [np.median(np.asarray(rounds[n], np.float64)[drawn_VK], axis=1) for n in ns]
        return cls(tuple(ns), np.stack(medians, axis=1))

    @classmethod
    def linear(cls, fixed: float, per_candidate: float) -> "CostCurve":
        """Return the curve of a fixed cost per prompt and a cost per candidate."""
        return cls.of({1: fixed + per_candidate, 2: fixed + 2 * per_candidate})

    def cost_at(self, n: int) -> float:
        """Return the estimate at n, see `costs_at`."""
        return float(self.costs_at(n)[0])

    def costs_at(self, n: int) -> FloatArray:
        """Interpolate linearly between measured N, (V,); extrapolate from the last two, and not below the first."""
        last = len(self.ns) - 1
        if last == 0 or n <= self.ns[0]:
            return self._fitted_VP[:, 0]
        upper = min(int(np.searchsorted(self.ns, n)), last)
        share = (n - self.ns[upper - 1]) / (self.ns[upper] - self.ns[upper - 1])
        costs_V: FloatArray = (1 - share) * self._fitted_VP[:, upper - 1] + share * self._fitted_VP[:, upper]
        return costs_V

    def max_n_within(self, budget_V: FloatArray, limit: int) -> IntArray:
        """Return the largest n up to `limit` within the budget, (V,); 0 where not even one candidate fits."""
        fits = [self.costs_at(n) <= budget_V for n in range(1, limit + 1)]
        return np.count_nonzero(np.broadcast_arrays(*fits), axis=0)

    @cached_property
    def _fitted_VP(self) -> FloatArray:
        """Fit the nearest costs that never fall: the largest of the least means of runs that hold a point."""
        points = range(len(self.ns))

        def mean(first: int, last: int) -> FloatArray:
            return self.costs_VP[:, first : last + 1].mean(axis=1)

        def fitted(point: int) -> FloatArray:
            starts = [np.min([mean(first, last) for last in points[point:]], axis=0) for first in points[: point + 1]]
            return np.max(starts, axis=0)

        return np.stack([fitted(point) for point in points], axis=1)


@dataclass(frozen=True)
class CostedStrategy:
    """A selection strategy with its cost; it takes at most `max_candidates` candidates (None: all there are)."""

    name: str
    select: SelectionStrategy
    curve: CostCurve
    steps: int = 1
    max_candidates: int | None = None

    def choose_n(self, budget_V: FloatArray, outcomes: Outcomes) -> IntArray:
        """Return the largest N that fits into the budget, (V,); 0 for none."""
        return self.curve.max_n_within(budget_V, self.max_candidates or outcomes.candidates)

    def outcome(self, n_V: IntArray, outcomes: Outcomes) -> UncertainOutcome:
        """Select among the N of each version; where nothing fits into a resample's budget, it takes one candidate."""
        ns, variants_V = np.unique(np.maximum(n_V, 1), return_inverse=True)
        variants_VC = np.stack([self.select(outcomes, int(n)) for n in ns])
        resampled_R = np.broadcast_to(variants_V[1:] if len(variants_V) > 1 else variants_V, RESAMPLES)
        return UncertainOutcome(variants_VC, int(variants_V[0]), resampled_R)


def reference_budgets(reference: CostCurve, candidates: int) -> list[FloatArray]:
    """Return the cost (V,) of the reference at each of `BUDGET_NS` for which there are enough candidates."""
    return [reference.costs_at(n) for n in BUDGET_NS if n <= candidates]


def equal_cost_table(
    outcomes: Outcomes, strategies: Sequence[CostedStrategy], budgets: Sequence[FloatArray]
) -> list[EqualCostRow]:
    """Compare strategies within each budget (V,): one row for each that fits, with the N it affords.

    The first strategy is the reference for `reference_lead`. Raises InvalidRequest for a budget that doesn't even hold
    one candidate of the reference.
    """
    rows, reference = [], strategies[0]
    for budget_V in budgets:
        reference_n_V = reference.choose_n(budget_V, outcomes)
        if not reference_n_V[0]:
            raise InvalidRequest(
                f"the budget of {budget_V[0]:g} holds no candidate of {reference.name}, which costs "
                f"{reference.curve.cost_at(1):g}: raise the budget"
            )
        reference_outcome = reference.outcome(reference_n_V, outcomes)
        for strategy in strategies:
            n_V = strategy.choose_n(budget_V, outcomes)
            if n_V[0]:
                rows.append(_row(float(budget_V[0]), strategy, n_V, outcomes, reference_outcome))
    return rows


def _row(
    budget: float, strategy: CostedStrategy, n_V: IntArray, outcomes: Outcomes, reference_outcome: UncertainOutcome
) -> EqualCostRow:
    outcome, n = strategy.outcome(n_V, outcomes), int(n_V[0])
    return EqualCostRow(
        **dict(outcomes.averages(outcome)),
        budget=budget,
        strategy=strategy.name,
        steps=strategy.steps,
        n=n,
        n_interval=_n_interval(n_V),
        cost=strategy.curve.cost_at(n),
        reference_lead=outcomes.lead(reference_outcome, outcome),
    )


def _n_interval(n_V: IntArray) -> tuple[int, int]:
    """Return the 95 % interval of an N by the versions of its cost."""
    low, high = np.quantile(n_V, [0.025, 0.975], method="nearest")
    return int(low), int(high)


def competitor_table(outcomes: Outcomes, strategies: Sequence[CostedStrategy]) -> list[CompetitorRow]:
    """Compare the first strategy with each other one within the cost of the other's own N.

    A budget that is the reference's cost at some N wastes none of its own time, but some of a competitor's; here it is
    the other way round. N is each of `BUDGET_NS`, and 1 for a strategy that takes no more. Rows whose budget holds no
    candidate of the reference are left out.
    """
    reference, *competitors = strategies
    rows = []
    for competitor in competitors:
        limit = competitor.max_candidates or outcomes.candidates
        for n in [n for n in BUDGET_NS if n <= limit] or [limit]:
            budget_V = competitor.curve.costs_at(n)
            reference_n_V = reference.choose_n(budget_V, outcomes)
            if reference_n_V[0]:
                rows.append(_competitor_row(reference, reference_n_V, competitor, n, outcomes))
    return rows


def _competitor_row(
    reference: CostedStrategy, reference_n_V: IntArray, competitor: CostedStrategy, n: int, outcomes: Outcomes
) -> CompetitorRow:
    outcome = competitor.outcome(np.array([n]), outcomes)
    reference_outcome = reference.outcome(reference_n_V, outcomes)
    return CompetitorRow(
        competitor=competitor.name,
        n=n,
        cost=competitor.curve.cost_at(n),
        accuracy=bootstrap_mean(outcomes.prompts, outcome),
        reference=reference.name,
        reference_n=int(reference_n_V[0]),
        reference_n_interval=_n_interval(reference_n_V),
        reference_accuracy=bootstrap_mean(outcomes.prompts, reference_outcome),
        lead=outcomes.lead(reference_outcome, outcome),
    )
