"""What a finished evaluation's folder holds, read and checked."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from forejudge.checkpoint import read_config
from forejudge.errors import CheckpointError
from forejudge.evaluation.bootstrap import Difference, Interval
from forejudge.evaluation.evaluation_folder import EvaluationFolder, EvaluationSettings
from forejudge.evaluation.outcomes import Outcomes, outcomes_of
from forejudge.evaluation.suite import FIGURES_FILE, Costs


class _Read(BaseModel):
    model_config = ConfigDict(frozen=True)


class Averages(_Read):
    """Shares of right pictures in [0, 1]: over cases (micro), over tasks (macro), and of each task with cases."""

    micro: Interval
    macro: Interval
    single_object: Interval | None = None
    two_object: Interval | None = None
    counting: Interval | None = None
    colors: Interval | None = None
    position: Interval | None = None
    color_attr: Interval | None = None


class ChosenAmong(Averages):
    """What somebody reaches who chooses among `n`."""

    chosen_by: str
    n: int


class EqualCost(ChosenAmong):
    """And within a budget, in the unit of its table."""

    budget: float
    steps: int
    reference_ahead_by: Difference


class Ranking(_Read):
    """How well a verifier orders candidates. Beside these fields: its `distance_closed_at_N`."""

    model_config = ConfigDict(extra="allow")
    __pydantic_extra__: dict[str, Interval]

    auroc: float
    pair_accuracy: Interval
    expected_calibration_error: float | None
    ties: float


class Figures(_Read):
    """What `forejudge eval` writes to figures.json, as far as the page shows it."""

    made: dict[str, str]
    settings: EvaluationSettings
    test_cases: int
    distinct_prompts: int
    seeds: int
    best_of_n: list[ChosenAmong]
    verifiers: dict[str, Ranking]
    plain: dict[str, Averages]
    costs: Costs
    equal_time: list[EqualCost]
    equal_work: list[EqualCost] = []

    def by_chooser(self) -> Mapping[str, list[ChosenAmong]]:
        """Best-of-N of each chooser, N rising."""
        names = dict.fromkeys(row.chosen_by for row in self.best_of_n)
        rows = sorted(self.best_of_n, key=lambda row: row.n)
        return {name: [row for row in rows if row.chosen_by == name] for name in names}


@dataclass(frozen=True)
class Layer:
    """What a verifier reaches with Best-of-8 that reads after `cut` blocks."""

    cut: int
    micro: Interval


@dataclass(frozen=True)
class Contents:
    """An evaluation: its folder, its figures, and what was drawn as arrays."""

    folder: EvaluationFolder
    figures: Figures
    outcomes: Outcomes

    @classmethod
    def read(cls, path: Path) -> "Contents":
        """Raises CheckpointError for a folder that is no evaluation, is not finished or cannot be read."""
        folder = EvaluationFolder(path)
        outcomes, figures = outcomes_of(folder), read_config(path / FIGURES_FILE, Figures)
        if figures.settings != folder.settings:
            raise CheckpointError(
                f"{path / FIGURES_FILE} is of another evaluation: run `forejudge eval` on {path} again"
            )
        return cls(folder, figures, outcomes)


class _Variant(_Read):
    reads: str
    best_of_8: Interval


class _Study(_Read):
    variants: dict[str, _Variant]


def read_layers(path: Path) -> list[Layer]:
    """From what `forejudge study layers` writes, cuts rising. Raises CheckpointError."""
    every = read_config(path, _Study).variants.values()
    cuts = [(variant.reads.removeprefix("hidden:"), variant.best_of_8) for variant in every]
    return sorted((Layer(int(cut), reached) for cut, reached in cuts if cut.isdecimal()), key=lambda layer: layer.cut)
