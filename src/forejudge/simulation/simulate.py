"""Searches on recorded verdicts: what each finds and costs.

Shapes: C cases, S seeds, N candidates in the order they were generated.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from math import ceil

import numpy as np
from numpy.typing import NDArray

from forejudge.errors import InvalidRequest
from forejudge.evaluation.metrics import BoolArray, FloatArray
from forejudge.evaluation.policy_costs import BatchCosts, PolicyCosts
from forejudge.expected_improvement import Prior
from forejudge.policies import AllPolicies, LatencyEstimate, SearchPolicy, SearchState
from forejudge.search import is_doubtful, order_by_score
from forejudge.simulation.recording import Recording
from forejudge.simulation.rules import Cascade, Rule
from forejudge.types import Verdict

CANDIDATES, MILLISECONDS = "candidates", "ms"
SECOND_STEP = 1.41  # candidates, on SANA-Sprint


@dataclass(frozen=True)
class UnitCosts:
    """Costs of the parts of a search in one unit. Batches of a size that was not measured are interpolated."""

    unit: str
    batch: dict[int, float]
    encode: float = 0.0
    finish: float = 0.0
    second_step: float = SECOND_STEP

    @classmethod
    def in_candidates(cls, second_step: float = SECOND_STEP) -> "UnitCosts":
        """Count candidates: their prefixes and scores, and a second step as `second_step` candidates."""
        return cls(CANDIDATES, {}, second_step=second_step)

    @classmethod
    def in_milliseconds(cls, costs: PolicyCosts, verifier: str) -> "UnitCosts":
        """Take the milliseconds that were measured."""
        measured: BatchCosts = costs.verifiers[verifier]
        second_step = measured.second_step_ms or 0.0  # no rule has one where none was recorded
        return cls(MILLISECONDS, dict(measured.batch_ms), costs.encode_ms, measured.finish_ms, second_step)

    def of_batch(self, size: int) -> float:
        """Return the cost of generating and scoring a batch; one beyond those measured goes in several."""
        if not self.batch:
            return float(size)
        sizes = sorted(self.batch)
        full_batches, rest = divmod(size, sizes[-1])
        rest_cost = float(np.interp(rest, sizes, [self.batch[each] for each in sizes])) if rest else 0.0
        return full_batches * self.batch[sizes[-1]] + rest_cost

    def latency(self, seconds: float, *, refine: bool) -> LatencyEstimate:
        """Return what a deadline measures; with `refine`, a finish has a second step.

        Raises InvalidRequest where costs are not times.
        """
        if self.unit != MILLISECONDS:
            raise InvalidRequest("a deadline is simulated in ms: give --unit ms")
        batch = {size: milliseconds / 1000 for size, milliseconds in self.batch.items()}
        finish = self.finish + refine * self.second_step
        return LatencyEstimate(batch, finish / 1000, (self.batch[1] + finish) / 1000)


@dataclass(frozen=True)
class SimulatedSearch:
    """Outcome of one search: the candidates used, the winner's index, and the cost of all but finishing it."""

    used: int
    winner: int
    cost: float


def simulate_search(
    policy: SearchPolicy, verdicts: Sequence[Verdict], costs: UnitCosts, batch_size: int
) -> SimulatedSearch:
    """Let a policy search among recorded verdicts, in their order."""
    cost = costs.encode
    state = SearchState(batch_size, elapsed=cost / 1000)
    while size := min(policy.next_batch(state), len(verdicts) - state.num_generated):
        took = costs.of_batch(size)
        cost += took
        batch = verdicts[state.num_generated : state.num_generated + size]
        state = state.extended(batch, policy, seconds=took / 1000, elapsed=cost / 1000)
    return SimulatedSearch(len(state.verdicts), order_by_score(state.verdicts)[0], cost)


@dataclass(frozen=True)
class SimulatedOutcomes:
    """Outcomes (in {0, 1}), costs, candidates used and second steps taken of each case and seed, (C, S) each.

    `second_correct_CS` holds what second evaluators say of the same images, by their names, where that was recorded.
    """

    correct_CS: FloatArray
    cost_CS: FloatArray
    used_CS: NDArray[np.intp]
    refined_CS: NDArray[np.bool_]
    second_correct_CS: Mapping[str, FloatArray] = field(default_factory=dict)

    @property
    def outcome_C(self) -> FloatArray:
        """Outcome of each case, averaged over seeds."""
        outcome_C: FloatArray = self.correct_CS.mean(axis=1)
        return outcome_C


@dataclass(frozen=True, eq=False)
class Simulator:
    """Simulates rules with one verifier of a recording and its prior, which a price needs."""

    recording: Recording
    verifier: str
    costs: UnitCosts
    prior: Prior | None
    _searches: dict[Rule, list[SimulatedSearch]] = field(default_factory=dict)

    def run(self, rule: Rule) -> SimulatedOutcomes:
        """Simulate a rule on every case and seed. Raises InvalidRequest for a second step that was not recorded."""
        outcomes, refine_below = self.recording.outcomes, rule.options.refine_below
        shape, searches = outcomes.correct_CSN.shape[:2], self._searches_of(rule)
        winner_CS1 = np.array([search.winner for search in searches]).reshape(*shape, 1)

        winners = zip(searches, self._verdicts, strict=True)
        refined = [is_doubtful(verdicts[search.winner], refine_below) for search, verdicts in winners]
        refined_CS = np.array(refined).reshape(shape)

        def finished(one_step_CSN: BoolArray, two_steps_CSN: FloatArray | None) -> FloatArray:
            first_CS = np.take_along_axis(one_step_CSN, winner_CS1, axis=-1)[..., 0].astype(np.float64)
            if two_steps_CSN is None:
                return np.where(refined_CS, np.nan, first_CS)
            return np.where(refined_CS, np.take_along_axis(two_steps_CSN, winner_CS1, axis=-1)[..., 0], first_CS)

        correct_CS = finished(outcomes.correct_CSN, outcomes.second_step_correct_CSN)
        if np.isnan(correct_CS).any():
            raise InvalidRequest(
                "a second step is simulated from its recorded evaluation, which is missing: run `forejudge eval` with "
                "--record-for simulate"
            )
        second_CS = {
            name: finished(correct_CSN, outcomes.second_step_second_correct_CSN.get(name))
            for name, correct_CSN in outcomes.second_correct_CSN.items()
        }
        cost_CS = np.array([search.cost for search in searches]).reshape(shape) + self.costs.finish
        return SimulatedOutcomes(
            correct_CS=correct_CS,
            cost_CS=cost_CS + refined_CS * self.costs.second_step,
            used_CS=np.array([search.used for search in searches]).reshape(shape),
            refined_CS=refined_CS,
            second_correct_CS={name: each for name, each in second_CS.items() if not np.isnan(each).any()},
        )

    def _searches_of(self, rule: Rule) -> list[SimulatedSearch]:
        """Search every case and seed, once for rules that differ in what follows the search alone."""
        refines, has_deadline = rule.options.refine_below > 0, rule.options.budget_ms is not None
        search_options = rule.options.model_copy(update={"refine_below": float(refines and has_deadline)})
        key = replace(rule, policy="", options=search_options)
        if key not in self._searches:
            latency = partial(self.costs.latency, refine=refines)
            policy = AllPolicies.from_options(rule.options, latency, self.prior)
            self._searches[key] = [
                simulate_search(policy, verdicts, self.costs, rule.batch_size) for verdicts in self._verdicts
            ]
        return self._searches[key]

    @cached_property
    def _verdicts(self) -> list[list[Verdict]]:
        """Verdicts of each case and seed."""
        outcomes = self.recording.outcomes
        score_CSN, probability_CSN = outcomes.score_CSN[self.verifier], outcomes.probability_CSN.get(self.verifier)
        score_XN = score_CSN.reshape(-1, outcomes.candidates).tolist()
        if probability_CSN is None:
            return [list(map(Verdict, scores)) for scores in score_XN]
        columns = zip(score_XN, probability_CSN.reshape(-1, outcomes.candidates).tolist(), strict=True)
        return [list(map(_verdict, scores, probabilities)) for scores, probabilities in columns]

    def run_cascade(self, cascade: Cascade) -> SimulatedOutcomes:
        """Simulate a cascade; its cost is counted in candidates of the later cut, by operations.

        Those that are kept continue from the early cut: their first blocks are not run again.
        """
        outcomes, flops = self.recording.outcomes, self.recording.header.flops
        early, late = flops[cascade.early], flops[cascade.late]
        kept = ceil(cascade.n / 2)
        continued = late.candidate - (early.candidate - early.scoring)
        cost = (cascade.n * early.candidate + kept * continued) / late.candidate
        early_CSN = outcomes.score_CSN[cascade.early][..., : cascade.n]
        kept_CSK = np.argsort(-early_CSN, axis=-1, kind="stable")[..., :kept]
        late_CSK = np.take_along_axis(outcomes.score_CSN[cascade.late], kept_CSK, axis=-1)
        winner_CS1 = np.take_along_axis(kept_CSK, late_CSK.argmax(axis=-1)[..., None], axis=-1)
        correct_CS = np.take_along_axis(outcomes.correct_CSN, winner_CS1, axis=-1)[..., 0].astype(np.float64)
        shape = correct_CS.shape
        return SimulatedOutcomes(correct_CS, np.full(shape, cost), np.full(shape, cascade.n), np.zeros(shape, np.bool_))


def _verdict(score: float, probability: float) -> Verdict:
    return Verdict(score, probability=probability)
