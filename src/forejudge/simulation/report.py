"""The report of a simulation as JSON stores it: quality of every rule against its mean cost, beside fixed Best-of-N.

Accuracies are in [0, 1] with 95 % intervals over prompts; costs are in the report's unit.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
from pydantic import Field, PositiveInt

from forejudge.candidates.evaluation_store import EvaluationSettings
from forejudge.evaluation.bootstrap import Averages, Lead
from forejudge.evaluation.metrics import FloatArray
from forejudge.evaluation.report import FIXED, CandidateCounts, Cost, FrozenModel, UndefinedShare
from forejudge.expected_improvement import Prior
from forejudge.files import write_text
from forejudge.options import SearchOptions
from forejudge.prompts.geneval import Task
from forejudge.simulation.mixtures import candidate_counts, mixture
from forejudge.simulation.recording import Recording
from forejudge.simulation.rules import CASCADE, Cascade, Grid, Rule
from forejudge.simulation.simulate import CANDIDATES, SimulatedOutcomes, Simulator, UnitCosts


class SimulatedRule(FrozenModel):
    """Accuracy and cost of one rule, and its lead over fixed Best-of-N at its mean cost.

    Fixed Best-of-N between two whole N is a mixture of both; `same_quality_n` is the least N at which it is as good, if
    any. `second_steps` is the share of searches whose winner takes a second step. The lead takes the mean cost as
    known.
    """

    policy: str
    options: dict[str, int | float | str]
    mean_cost: Cost
    accuracy: Averages
    fixed_accuracy: UndefinedShare
    lead: Lead
    task_leads: dict[Task, Lead]
    same_quality_n: PositiveInt | None
    candidates: CandidateCounts
    second_steps: UndefinedShare


class FixedPoint(FrozenModel):
    """Fixed Best-of-N: its mean cost and accuracy."""

    n: PositiveInt
    mean_cost: Cost
    accuracy: UndefinedShare


class SimulationReport(FrozenModel):
    """Simulated rules of one verifier. `prior` is the one that policies used."""

    provenance: dict[str, str]
    settings: EvaluationSettings
    verifier: str
    prior: Prior
    unit: str
    second_step_cost: float
    test_cases: PositiveInt
    distinct_prompts: PositiveInt
    orders: PositiveInt
    fixed: Annotated[list[FixedPoint], Field(min_length=1)]
    rules: list[SimulatedRule]

    def write(self, path: Path) -> None:
        """Write the report as JSON. Raises OutputError."""
        write_text(path, self.model_dump_json(indent=1) + "\n")


@dataclass(frozen=True)
class FixedCurve:
    """Fixed Best-of-N at every N: mean costs rising (N,), and outcomes of cases (N, C)."""

    costs_N: FloatArray
    outcomes_NC: FloatArray

    @classmethod
    def of(cls, simulator: Simulator) -> "FixedCurve":
        """Simulate every N up to the number of recorded candidates."""
        ns = range(1, simulator.recording.outcomes.candidates + 1)
        found = [simulator.run(Rule(FIXED, SearchOptions(n=n))) for n in ns]
        return cls(np.array([each.cost_CS.mean() for each in found]), np.stack([each.outcome_C for each in found]))

    def outcome_at(self, cost: float) -> FloatArray:
        """Return the outcomes (C,) at a mean cost: a mixture of the two nearest N, and the nearest beyond the ends."""
        mixed_C: FloatArray = np.sum([share * self.outcomes_NC[n] for n, share in mixture(self.costs_N, cost)], axis=0)
        return mixed_C

    def same_quality_n(self, accuracy: float) -> int | None:
        """Return the least N that is at least as accurate."""
        is_enough_N = self.outcomes_NC.mean(axis=1) >= accuracy - 1e-9
        return int(is_enough_N.argmax()) + 1 if is_enough_N.any() else None

    def points(self) -> list[FixedPoint]:
        """Return mean cost and accuracy at each N."""
        accuracies = self.outcomes_NC.mean(axis=1)
        return [
            FixedPoint(n=n, mean_cost=round(float(cost), 4), accuracy=round(float(accuracy), 4))
            for n, (cost, accuracy) in enumerate(zip(self.costs_N, accuracies, strict=True), start=1)
        ]


def simulation_report(
    provenance: Mapping[str, str],
    recording: Recording,
    verifier: str,
    costs: UnitCosts,
    grid: Grid,
    orders: int = 1,
) -> SimulationReport:
    """Simulate all rules of a grid; where costs are counted in candidates, cascades too, from each earlier cut.

    Every case is searched in `orders` orders of its candidates.

    Raises InvalidRequest for a rule whose costs or labels were not recorded.
    """
    prior, recording = recording.prior(verifier), recording.in_orders(orders)
    simulator = Simulator(recording, verifier, costs, prior)
    curve = FixedCurve.of(simulator)
    rules = [(rule.policy, _options(rule), simulator.run(rule)) for rule in grid.rules()]
    for cascade in _cascades(recording, verifier, grid) if costs.unit == CANDIDATES else ():
        rules.append((CASCADE, {"early": cascade.early, "n": cascade.n}, simulator.run_cascade(cascade)))
    return SimulationReport(
        provenance=dict(provenance),
        settings=recording.header.settings,
        verifier=verifier,
        prior=prior,
        unit=costs.unit,
        second_step_cost=costs.second_step,
        test_cases=len(recording.outcomes.prompts),
        distinct_prompts=len(set(recording.outcomes.prompts)),
        orders=orders,
        fixed=curve.points(),
        rules=[_simulated_rule(recording, curve, *rule) for rule in rules],
    )


def _cascades(recording: Recording, late: str, grid: Grid) -> Iterator[Cascade]:
    """Yield a cascade for each verifier that reads earlier, in operations, and each N of the grid above 1."""
    flops = recording.header.flops
    for early in recording.outcomes.score_CSN.keys() & flops.keys():
        if flops[early].candidate < flops[late].candidate:
            yield from (Cascade(early, late, n) for n in grid.ns if 1 < n <= grid.max_n)


def _options(rule: Rule) -> dict[str, int | float | str]:
    limits = {name: limit for name, limit in rule.options.limits.items() if name != "max_n"}
    refine_below = rule.options.refine_below
    return {**limits, **({"refine_below": refine_below} if refine_below else {})}


def _simulated_rule(
    recording: Recording,
    curve: FixedCurve,
    policy: str,
    options: dict[str, int | float | str],
    found: SimulatedOutcomes,
) -> SimulatedRule:
    outcomes, outcome_C = recording.outcomes, found.outcome_C
    mean_cost = float(found.cost_CS.mean())
    fixed_C = curve.outcome_at(mean_cost)
    return SimulatedRule(
        policy=policy,
        options=options,
        mean_cost=round(mean_cost, 4),
        accuracy=outcomes.averages(outcome_C),
        fixed_accuracy=round(float(fixed_C.mean()), 4),
        lead=outcomes.lead(outcome_C, fixed_C),
        task_leads=outcomes.task_leads(outcome_C, fixed_C),
        same_quality_n=curve.same_quality_n(float(outcome_C.mean())),
        candidates=candidate_counts([(found.used_CS, 1.0)]),
        second_steps=round(float(found.refined_CS.mean()), 4),
    )
