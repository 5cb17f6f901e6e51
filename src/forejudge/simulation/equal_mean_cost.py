"""Everything at equal mean cost: fixed Best-of-N, searches that end by their verdicts, and images without a verifier.

A budget is the cost of the first verifier's fixed Best-of-N. A policy spends it on average: of its settings the two
whose mean costs are next to the budget are mixed. Settings and baselines without a free choice are compared at their
own cost.

Shapes: C cases, S seeds.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path

import numpy as np

from forejudge.evaluation.bootstrap import bootstrap_mean
from forejudge.evaluation.build_report import Baseline
from forejudge.evaluation.equal_cost import BUDGET_NS
from forejudge.evaluation.metrics import FloatArray
from forejudge.evaluation.report import CandidateCounts, EvaluationReport, MeanCostRow
from forejudge.evaluation.strategies import Outcomes
from forejudge.evaluation.suite import load_baselines
from forejudge.simulation.families import RuleFamily
from forejudge.simulation.mixtures import candidate_counts, mixture
from forejudge.simulation.recording import Recording, load_recording
from forejudge.simulation.simulate import SimulatedOutcomes, Simulator, UnitCosts


@dataclass(frozen=True)
class Strategy:
    """A policy with one verifier: its settings by name, with what each finds, mean costs rising."""

    verifier: str
    policy: str
    settings: Mapping[str, SimulatedOutcomes]

    @classmethod
    def simulated(cls, simulator: Simulator, family: RuleFamily) -> "Strategy":
        """Simulate all rules of a family."""
        rules = family.rules(simulator.recording.outcomes.candidates)
        found = {name: simulator.run(rule) for name, rule in rules.items()}
        return cls(simulator.verifier, family.name, dict(sorted(found.items(), key=lambda item: _mean_cost(item[1]))))

    @cached_property
    def costs(self) -> FloatArray:
        """Mean costs of the settings."""
        return np.array([_mean_cost(found) for found in self.settings.values()])

    def at(self, budget: float) -> "MixedOutcomes":
        """Return what the policy finds at a mean cost, or at the nearest that its settings reach."""
        names = list(self.settings)
        return MixedOutcomes(
            {names[at]: (self.settings[names[at]], share) for at, share in mixture(self.costs, budget)}
        )


def _mean_cost(found: SimulatedOutcomes) -> float:
    return float(found.cost_CS.mean())


@dataclass(frozen=True)
class MixedOutcomes:
    """Outcomes of settings that are taken at random, each with its share."""

    parts: Mapping[str, tuple[SimulatedOutcomes, float]]

    @property
    def outcome_C(self) -> FloatArray:
        """Outcome of each case."""
        return self._mean(lambda found: found.outcome_C)

    @property
    def cost(self) -> float:
        """Mean cost."""
        return float(self._mean(lambda found: found.cost_CS.mean()))

    @property
    def second_steps(self) -> float:
        """Share of searches whose winner takes a second step."""
        return float(self._mean(lambda found: found.refined_CS.mean()))

    @property
    def candidates(self) -> CandidateCounts:
        """Distribution of the number of candidates."""
        return candidate_counts([(found.used_CS, share) for found, share in self.parts.values()])

    @property
    def second_outcomes(self) -> dict[str, FloatArray]:
        """Outcome of each case as second evaluators see it."""
        known = set.intersection(*(set(found.second_correct_CS) for found, _ in self.parts.values()))
        return {name: self._mean(partial(_second_outcome, name)) for name in sorted(known)}

    def _mean(self, value: Callable[[SimulatedOutcomes], FloatArray]) -> FloatArray:
        mean: FloatArray = np.sum([share * value(found) for found, share in self.parts.values()], axis=0)
        return mean


def _second_outcome(evaluator: str, found: SimulatedOutcomes) -> FloatArray:
    outcome_C: FloatArray = found.second_correct_CS[evaluator].mean(axis=1)
    return outcome_C


def add_equal_mean_time(report: EvaluationReport, folder: Path, families: Sequence[RuleFamily]) -> EvaluationReport:
    """Add what searches find at equal mean time, measured in the rounds of the other strategies.

    Raises CheckpointError for a folder without costs of batches, InvalidRequest for one without the second steps.
    """
    recording = load_recording(folder)
    costs = {name: UnitCosts.in_milliseconds(recording.header.costs, name) for name in report.costs.searches}
    baselines = load_baselines(folder, list(report.baselines))
    timed = {name: (baseline, report.costs.baseline_ms[name]) for name, baseline in baselines.items()}
    return report.model_copy(update={"equal_mean_time": mean_cost_rows(recording, costs, families, timed)})


def mean_cost_rows(
    recording: Recording,
    costs: Mapping[str, UnitCosts],
    families: Sequence[RuleFamily],
    baselines: Mapping[str, tuple[Baseline, float]],
) -> list[MeanCostRow]:
    """Compare all strategies with the first verifier's fixed Best-of-N, at its costs and then at their own.

    `costs` are those of searches with each verifier, the first of which sets the budgets; baselines have their own.
    Verifiers without calibration, or without a prior where a family has a price, have no rows of that family.
    """
    first, *others = [strategy for name in costs for strategy in _strategies(recording, name, costs[name], families)]
    outcomes = recording.outcomes
    budgets = [float(first.costs[n - 1]) for n in BUDGET_NS if n <= outcomes.candidates]
    rows = [
        _row(outcomes, first, budget, strategy.verifier, strategy.policy, strategy.at(budget))
        for budget in budgets
        for strategy in [first, *others]
        if len(strategy.settings) > 1 and strategy.costs[0] <= budget
    ]
    alone = [(each.verifier, each.policy, each.at(each.costs[0])) for each in others if len(each.settings) == 1]
    without = [(None, name, _one_image(baseline, cost)) for name, (baseline, cost) in baselines.items()]
    return rows + [
        _row(outcomes, first, found.cost, verifier, policy, found)
        for verifier, policy, found in [*alone, *without]
        if first.costs[0] <= found.cost
    ]


def _strategies(
    recording: Recording, verifier: str, costs: UnitCosts, families: Sequence[RuleFamily]
) -> Iterator[Strategy]:
    prior = recording.header.costs.verifiers[verifier].prior
    simulator = Simulator(recording, verifier, costs, prior)
    is_calibrated = verifier in recording.outcomes.probability_CSN
    for family in [RuleFamily.fixed(), *families]:
        if family.can_use(calibrated=is_calibrated, prior=prior):
            yield Strategy.simulated(simulator, family)


def _one_image(baseline: Baseline, cost: float) -> MixedOutcomes:
    correct_CS = baseline.outcomes.correct_CSN[..., 0].astype(np.float64)
    shape = correct_CS.shape
    found = SimulatedOutcomes(correct_CS, np.full(shape, cost), np.ones(shape, np.intp), np.zeros(shape, np.bool_))
    return MixedOutcomes({"": (found, 1.0)})


def _row(
    outcomes: Outcomes, first: Strategy, budget: float, verifier: str | None, policy: str, found: MixedOutcomes
) -> MeanCostRow:
    outcome_C, fixed_C = found.outcome_C, first.at(found.cost).outcome_C
    return MeanCostRow(
        **dict(outcomes.averages(outcome_C)),
        budget=budget,
        verifier=verifier,
        policy=policy,
        settings={name: shown for name, (_, share) in found.parts.items() if name and (shown := round(share, 4)) > 0},
        cost=found.cost,
        candidates=found.candidates,
        second_steps=found.second_steps,
        lead=outcomes.lead(outcome_C, fixed_C),
        task_leads=outcomes.task_leads(outcome_C, fixed_C),
        second_evaluators={
            name: bootstrap_mean(outcomes.prompts, second_C) for name, second_C in found.second_outcomes.items()
        },
    )
