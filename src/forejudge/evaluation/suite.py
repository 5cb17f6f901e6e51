"""A whole evaluation: candidates for all verifiers, plain pictures beside them, what each way costs, and the tables."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from forejudge.candidates.collect import EvaluationCollector
from forejudge.candidates.store import EvaluationStore
from forejudge.config_files import read_config
from forejudge.errors import InvalidRequest
from forejudge.evaluation.equal_cost import CostCurve, CostedStrategy, equal_cost_table, reference_budgets
from forejudge.evaluation.figures import SuiteCosts, VerifierWeights, evaluation_metrics
from forejudge.evaluation.intervals import outcome_averages
from forejudge.evaluation.strategies import (
    Outcomes,
    SelectionStrategy,
    best_score_strategy,
    load_outcomes,
    random_strategy,
    verifier_scores,
)
from forejudge.files import write_shared_text
from forejudge.generators.base import Generator
from forejudge.profiling.searches import generation_milliseconds, search_costs, stage_flops
from forejudge.progress import ProgressCallback, Shard
from forejudge.result import provenance
from forejudge.types import Candidates, Verdict
from forejudge.verifiers.base import Verifier
from forejudge.verifiers.language_model import LanguageModelVerifier

# FOLDED: Controls beside a verifier: what it says when it reads the wrong candidate's states, or none.


class _Control(Verifier):
    def __init__(self, verifier: LanguageModelVerifier) -> None:
        self.name, self.verifier = verifier.name, verifier
        self.reads, self.calibrated, self.digest = verifier.reads, verifier.calibrated, verifier.digest

    def check(self, generator: Generator) -> list[str]:
        """See `Verifier.check`."""
        return self.verifier.check(generator)


class ShuffledStates(_Control):
    """Each candidate is judged by another one's state, at random: choosing by it is choosing blindly."""

    def score(self, prompt: str, candidates: Candidates) -> list[Verdict]:
        """See `Verifier.score`."""
        rng = torch.Generator().manual_seed(candidates.seeds[0])
        rows = torch.randperm(len(candidates), generator=rng).tolist()
        views = {stage: candidates[rows].views[stage] for stage in self.reads}
        return self.verifier.score(prompt, replace(candidates, views=views))


class ZeroedStates(_Control):
    """Every state is the mean of all, zero once it is standardised: what the prompt alone says."""

    def score(self, prompt: str, candidates: Candidates) -> list[Verdict]:
        """See `Verifier.score`. For readings of a hidden state."""
        (stage,) = self.reads
        views = {stage: self.verifier.model.connector.mean_states(candidates.tensor(stage))}
        return self.verifier.score(prompt, replace(candidates, views=views))


def with_controls(verifiers: Mapping[str, Verifier]) -> dict[str, Verifier]:
    """And beside the first one what it says of shuffled and of zeroed states.

    Raises InvalidRequest where it does not read hidden states.
    """
    first = next(iter(verifiers.values()))
    if not isinstance(first, LanguageModelVerifier) or not first.config.reads.startswith("hidden:"):
        raise InvalidRequest(f"controls are for verifiers of hidden states, which {first.name} is not")
    return {**verifiers, "states shuffled": ShuffledStates(first), "states zeroed": ZeroedStates(first)}


TIMED_NS = (1, 2, 4, 8, 16)
COSTS_FILE, BASELINES_FOLDER = "costs.json", "baselines"
_ROUNDS = 7


@dataclass(frozen=True)
class Suite:
    """`main` is drawn for its verifiers; each of `baselines` is one picture without a verifier, by the name of its row.

    The verifiers `timed_verifiers`, in this order, are timed and set beside each other at equal cost; the first sets the
    budgets.
    """

    folder: Path
    main: EvaluationCollector
    timed_verifiers: Mapping[str, Verifier]
    baselines: Mapping[str, EvaluationCollector]
    report: ProgressCallback

    def run(self, shard: Shard) -> None:
        """Time what is compared, before its quality is known, then draw the shard of everything."""
        if not (self.folder / COSTS_FILE).exists():
            write_shared_text(self.folder / COSTS_FILE, self._measure_costs().model_dump_json(indent=1) + "\n")
        self.main.run(EvaluationStore(self.folder), shard, self.report)
        for name, evaluation in self.baselines.items():
            evaluation.run(EvaluationStore(baseline_folder(self.folder, name)), shard, self.report)

    @property
    def missing(self) -> int:
        """How many prompts are not drawn yet, plain ones too."""
        folders = [self.folder, *(baseline_folder(self.folder, name) for name in self.baselines)]
        return sum(len(EvaluationStore(folder).missing) for folder in folders)

    def _measure_costs(self) -> SuiteCosts:
        generator, prompt = self.main.generator, self.main.benchmark.lines[0].prompt
        ns = [n for n in TIMED_NS if n <= self.main.candidates]
        searches = {
            name: search_costs(generator, verifier, prompt, ns, _ROUNDS, self.report)
            for name, verifier in self.timed_verifiers.items()
        }
        baselines = {
            name: generation_milliseconds(each.generator, prompt, each.sampling.steps, _ROUNDS)
            for name, each in self.baselines.items()
        }
        return SuiteCosts(
            provenance=provenance(generator.device),
            searches=searches,
            baseline_ms=baselines,
            stage_flops=stage_flops(generator, self.timed_verifiers, prompt),
        )


@dataclass(frozen=True)
class FinishedSuite:
    """What a finished evaluation says. `provenance` tells where its figures are made (see `provenance`)."""

    folder: Path
    baselines: Sequence[str]
    provenance: Mapping[str, str]

    def figures(
        self,
        ns: Sequence[int],
        budgets: Sequence[float] | None,
        combined: Sequence[VerifierWeights],
    ) -> dict[str, Any]:
        """All figures and tables. Raises CheckpointError where prompts are missing, InvalidRequest for a budget."""
        outcomes, costs = (
            load_outcomes(EvaluationStore(self.folder)),
            read_config(self.folder / COSTS_FILE, SuiteCosts),
        )
        folders = {name: EvaluationStore(baseline_folder(self.folder, name)) for name in self.baselines}
        baselines = {name: load_outcomes(folder) for name, folder in folders.items()}
        steps = {name: folder.settings.steps for name, folder in folders.items()}
        settings = EvaluationStore(self.folder).settings
        return {
            "provenance": dict(self.provenance),
            "settings": settings.model_dump(),
            **evaluation_metrics(outcomes, ns, combined),
            "baselines": {
                name: outcome_averages(baseline_outcomes, random_strategy(baseline_outcomes, 1))
                for name, baseline_outcomes in baselines.items()
            },
            "costs": costs.model_dump(),
            "equal_time": equal_cost_table(outcomes, *_timed_strategies(outcomes, costs, baselines, steps, budgets)),
        }


def baseline_folder(folder: Path, name: str) -> Path:
    """Where plain pictures are kept: outside of what GenEval's evaluator would read."""
    return folder / BASELINES_FOLDER / name.replace(" ", "-").replace("/", "--")


def _timed_strategies(
    outcomes: Outcomes,
    costs: SuiteCosts,
    baselines: Mapping[str, Outcomes],
    steps: Mapping[str, int],
    budgets: Sequence[float] | None,
) -> tuple[list[CostedStrategy], Sequence[float]]:
    strategies = _verifier_strategies({name: CostCurve(search.milliseconds) for name, search in costs.searches.items()})
    strategies += [
        CostedStrategy(
            name,
            _baseline_strategy(baseline_outcomes),
            CostCurve({1: costs.baseline_ms[name]}),
            steps[name],
            max_candidates=1,
        )
        for name, baseline_outcomes in baselines.items()
    ]
    return strategies, budgets or reference_budgets(strategies[0].curve, outcomes.candidates)


def _verifier_strategies(curves: Mapping[str, CostCurve]) -> list[CostedStrategy]:
    """Each choosing by its own score."""
    return [CostedStrategy(name, best_score_strategy(verifier_scores(name)), curve) for name, curve in curves.items()]


def _baseline_strategy(baseline_outcomes: Outcomes) -> SelectionStrategy:
    """The one picture that was drawn, whatever was asked."""
    return lambda outcomes, n: random_strategy(baseline_outcomes, 1)


def merge_evaluation(folder: Path, part: Path) -> int:
    """Copy the prompts of another part of the same evaluation, plain ones too; how many were new here.

    Raises CheckpointError for a folder that is none, InvalidRequest where they were made with other settings.
    """
    new = EvaluationStore(folder).merge(EvaluationStore(part))
    for baselines in sorted((folder / BASELINES_FOLDER).glob("*")):
        EvaluationStore(baselines).merge(EvaluationStore(part / BASELINES_FOLDER / baselines.name))
    return new
