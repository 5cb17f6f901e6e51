"""A whole evaluation: candidates for all verifiers, plain pictures beside them, what each way costs, and the tables."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from forejudge.candidates.collect import Evaluation
from forejudge.candidates.store import EvaluationFolder
from forejudge.checkpoint import read_config
from forejudge.errors import InvalidRequest
from forejudge.evaluation.equal_cost import Contender, CostCurve, budgets_of, equal_cost_table
from forejudge.evaluation.figures import Costs, Weights, evaluation_figures
from forejudge.evaluation.intervals import averages_of
from forejudge.evaluation.strategies import Chooser, Outcomes, at_random, choosing_by, outcomes_of, verifier_scores
from forejudge.files import write_shared_text
from forejudge.generators.base import Generator
from forejudge.profiling.searches import drawing_milliseconds, search_costs, stage_flops
from forejudge.progress import Report, Shard
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

    def judge(self, prompt: str, candidates: Candidates) -> list[Verdict]:
        """See `Verifier.judge`."""
        source = torch.Generator().manual_seed(candidates.seeds[0])
        rows = torch.randperm(len(candidates), generator=source).tolist()
        views = {stage: candidates[rows].views[stage] for stage in self.reads}
        return self.verifier.judge(prompt, replace(candidates, views=views))


class ZeroedStates(_Control):
    """Every state is the mean of all, zero once it is standardised: what the prompt alone says."""

    def judge(self, prompt: str, candidates: Candidates) -> list[Verdict]:
        """See `Verifier.judge`. For readings of a hidden state."""
        (stage,) = self.reads
        views = {stage: self.verifier.model.connector.mean_states(candidates.tensor(stage))}
        return self.verifier.judge(prompt, replace(candidates, views=views))


def with_controls(verifiers: Mapping[str, Verifier]) -> dict[str, Verifier]:
    """And beside the first one what it says of shuffled and of zeroed states.

    Raises InvalidRequest where it does not read hidden states.
    """
    first = next(iter(verifiers.values()))
    if not isinstance(first, LanguageModelVerifier) or not first.config.reads.startswith("hidden:"):
        raise InvalidRequest(f"controls are for verifiers of hidden states, which {first.name} is not")
    return {**verifiers, "states shuffled": ShuffledStates(first), "states zeroed": ZeroedStates(first)}


TIMED_NS = (1, 2, 4, 8, 16)
COSTS_FILE, PLAIN_FOLDER = "costs.json", "plain"
_ROUNDS = 7


@dataclass(frozen=True)
class Suite:
    """`main` is drawn for its verifiers; each of `plain` is one picture without a verifier, by the name of its row.

    The verifiers `compared`, in this order, are timed and set beside each other at equal cost; the first sets the
    budgets.
    """

    folder: Path
    main: Evaluation
    compared: Mapping[str, Verifier]
    plain: Mapping[str, Evaluation]
    report: Report

    def run(self, shard: Shard) -> None:
        """Time what is compared, before its quality is known, then draw the shard of everything."""
        if not (self.folder / COSTS_FILE).exists():
            write_shared_text(self.folder / COSTS_FILE, self._measured().model_dump_json(indent=1) + "\n")
        self.main.run(EvaluationFolder(self.folder), shard, self.report)
        for name, evaluation in self.plain.items():
            evaluation.run(EvaluationFolder(plain_folder(self.folder, name)), shard, self.report)

    @property
    def missing(self) -> int:
        """How many prompts are not drawn yet, plain ones too."""
        folders = [self.folder, *(plain_folder(self.folder, name) for name in self.plain)]
        return sum(len(EvaluationFolder(folder).missing) for folder in folders)

    def _measured(self) -> Costs:
        generator, prompt = self.main.generator, self.main.benchmark.lines[0].prompt
        ns = [n for n in TIMED_NS if n <= self.main.candidates]
        searches = {
            name: search_costs(generator, verifier, prompt, ns, _ROUNDS, self.report)
            for name, verifier in self.compared.items()
        }
        plain = {
            name: drawing_milliseconds(each.generator, prompt, each.sampling.steps, _ROUNDS)
            for name, each in self.plain.items()
        }
        return Costs(
            made=provenance(generator.device),
            searches=searches,
            plain_milliseconds=plain,
            stage_flops=stage_flops(generator, self.compared, prompt),
        )


@dataclass(frozen=True)
class FinishedSuite:
    """What a finished evaluation says. `made` tells where its figures are made (see `provenance`)."""

    folder: Path
    plain: Sequence[str]
    made: Mapping[str, str]

    def figures(
        self,
        ns: Sequence[int],
        budgets: Sequence[float] | None,
        combined: Sequence[Weights],
    ) -> dict[str, Any]:
        """All figures and tables. Raises CheckpointError where prompts are missing, InvalidRequest for a budget."""
        outcomes, costs = outcomes_of(EvaluationFolder(self.folder)), read_config(self.folder / COSTS_FILE, Costs)
        folders = {name: EvaluationFolder(plain_folder(self.folder, name)) for name in self.plain}
        plain = {name: outcomes_of(folder) for name, folder in folders.items()}
        steps = {name: folder.settings.steps for name, folder in folders.items()}
        settings = EvaluationFolder(self.folder).settings
        return {
            "made": dict(self.made),
            "settings": settings.model_dump(),
            **evaluation_figures(outcomes, ns, combined),
            "plain": {name: averages_of(drawn, at_random(drawn, 1)) for name, drawn in plain.items()},
            "costs": costs.model_dump(),
            "equal_time": equal_cost_table(outcomes, *_by_time(outcomes, costs, plain, steps, budgets)),
        }


def plain_folder(folder: Path, name: str) -> Path:
    """Where plain pictures are kept: outside of what GenEval's evaluator would read."""
    return folder / PLAIN_FOLDER / name.replace(" ", "-").replace("/", "--")


def _by_time(
    outcomes: Outcomes,
    costs: Costs,
    plain: Mapping[str, Outcomes],
    steps: Mapping[str, int],
    budgets: Sequence[float] | None,
) -> tuple[list[Contender], Sequence[float]]:
    contenders = _verifiers({name: CostCurve(found.milliseconds) for name, found in costs.searches.items()})
    contenders += [
        Contender(name, _always(drawn), CostCurve({1: costs.plain_milliseconds[name]}), steps[name], largest=1)
        for name, drawn in plain.items()
    ]
    return contenders, budgets or budgets_of(contenders[0].curve, outcomes.candidates)


def _verifiers(curves: Mapping[str, CostCurve]) -> list[Contender]:
    """Each choosing by its own score."""
    return [Contender(name, choosing_by(verifier_scores(name)), curve) for name, curve in curves.items()]


def _always(drawn: Outcomes) -> Chooser:
    """The one picture that was drawn, whatever was asked."""
    return lambda outcomes, n: at_random(drawn, 1)


def take_over(folder: Path, part: Path) -> int:
    """Copy the prompts of another part of the same evaluation, plain ones too; how many were new here.

    Raises CheckpointError for a folder that is none, InvalidRequest where they were made with other settings.
    """
    new = EvaluationFolder(folder).take_over(EvaluationFolder(part))
    for plain in sorted((folder / PLAIN_FOLDER).glob("*")):
        EvaluationFolder(plain).take_over(EvaluationFolder(part / PLAIN_FOLDER / plain.name))
    return new
