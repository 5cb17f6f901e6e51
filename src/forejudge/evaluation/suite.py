"""A whole evaluation: candidates for all verifiers, plain pictures beside them, what each way costs, and the tables."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict

from forejudge.checkpoint import read_config
from forejudge.evaluation.choosers import Chooser, at_random, choosing_by, verifier_scores
from forejudge.evaluation.elsewhere import Elsewhere, on_sana_sprint
from forejudge.evaluation.equal_cost import Contender, CostCurve, budgets_of, equal_cost_table
from forejudge.evaluation.evaluation_folder import EvaluationFolder
from forejudge.evaluation.figures import Weights, evaluation_figures
from forejudge.evaluation.intervals import averages_of
from forejudge.evaluation.outcomes import Outcomes, outcomes_of
from forejudge.evaluation.run import Evaluation
from forejudge.files import write_shared_text
from forejudge.profiling.search_costs import SearchCosts, drawing_milliseconds, search_costs, stage_flops
from forejudge.progress import Report
from forejudge.provenance import provenance
from forejudge.shard import Shard
from forejudge.verifiers.base import Verifier

TIMED_NS = (1, 2, 4, 8, 16)
COSTS_FILE, FIGURES_FILE, PLAIN_FOLDER = "costs.json", "figures.json", "plain"
_ROUNDS = 7


class Costs(BaseModel):
    """By name: what searches with each verifier cost, milliseconds of each plain picture, FLOPs of each stage."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    made: dict[str, str]
    searches: dict[str, SearchCosts]
    plain_milliseconds: dict[str, float]
    stage_flops: dict[str, int]


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

    def on_sana_sprint(self) -> Elsewhere:
        """What these searches would cost there."""
        return on_sana_sprint(self.compared, self.main.generator.architecture.num_blocks)

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
        elsewhere: Elsewhere | None = None,
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
            **({} if elsewhere is None else _by_work(outcomes, elsewhere)),
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


def _by_work(outcomes: Outcomes, elsewhere: Elsewhere) -> dict[str, Any]:
    contenders = _verifiers(elsewhere.curves)
    table = equal_cost_table(outcomes, contenders, budgets_of(contenders[0].curve, outcomes.candidates))
    return {"equal_work": table, "stage_flops_elsewhere": dict(elsewhere.stage_flops)}


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
