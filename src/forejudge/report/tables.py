"""Figures of an evaluation as tables of text."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from forejudge.evaluation.bootstrap import Interval
from forejudge.evaluation.figures import GAP_CLOSED_AT_N, Averages, EqualCostRow, EvaluationMetrics, SuiteCosts
from forejudge.profiling.searches import SearchCosts
from forejudge.prompts.geneval import TASKS, Task
from forejudge.types import IMAGE

TASK_NAMES: Mapping[Task, str] = {
    "single_object": "Single object",
    "two_object": "Two objects",
    "counting": "Counting",
    "colors": "Colors",
    "position": "Position",
    "color_attr": "Attribution",
}
EMPTY_CELL = "–"
_GIGA, _MEGA = 1e9, 1e6


@dataclass(frozen=True)
class Cell:
    """What a cell says, and in smaller letters below it, such as an interval."""

    text: str
    detail: str = ""


@dataclass(frozen=True)
class Table:
    """Rows of cells below headings. The first `names` columns name a row; `groups` are the rows that open a group."""

    headings: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    names: int = 1
    groups: frozenset[int] = frozenset()


def equal_cost(rows: Sequence[EqualCostRow], baselines: Iterable[str], unit: str, digits: int) -> Table:
    """The paper's table, budgets in `unit` with so many digits."""
    headings = [f"Budget, {unit}", "Verifier", "Steps", "Best of", *TASK_NAMES.values(), "Overall", "p"]
    group_starts = [index for index, row in enumerate(rows) if index == 0 or row.budget != rows[index - 1].budget]
    baseline_names = set(baselines)

    def cells(index: int, row: EqualCostRow) -> list[Cell]:
        name = f"none: {row.strategy}" if row.strategy in baseline_names else row.strategy
        p = EMPTY_CELL if index in group_starts else _probability(row.reference_lead.p)
        key_cells = [Cell(f"{row.budget:.{digits}f}"), Cell(name), Cell(str(row.steps)), Cell(str(row.n))]
        return [*key_cells, *_tasks(row), percent(row.micro), Cell(p)]

    return Table(
        headings, [cells(index, row) for index, row in enumerate(rows)], names=2, groups=frozenset(group_starts)
    )


def best_of_n(metrics: EvaluationMetrics) -> Table:
    """Overall, a column for each N."""
    ns = sorted({row.n for row in metrics.best_of_n})
    rows = [[Cell(name), *(percent(row.micro) for row in rows)] for name, rows in metrics.by_strategy().items()]
    return Table(["Chosen by", *(f"N = {n}" for n in ns)], rows)


def ranking(metrics: EvaluationMetrics) -> Table:
    """A row for each verifier."""
    n = min(GAP_CLOSED_AT_N, metrics.settings.candidates)
    headings = [
        "Verifier",
        f"Distance closed at N = {n}, %",
        "AUROC",
        "Pair accuracy, %",
        "Calibration error",
        "Ties, %",
    ]
    rows = [
        [
            Cell(name),
            percent(entry.__pydantic_extra__[f"oracle_gap_closed_at_{n}"]),
            Cell(_number(entry.auroc, 3)),
            percent(entry.pair_accuracy),
            Cell(_number(entry.expected_calibration_error, 3)),
            Cell(_number(100 * entry.tie_rate, 1)),
        ]
        for name, entry in metrics.verifiers.items()
    ]
    return Table(headings, rows)


def costs(suite_costs: SuiteCosts, reads: Mapping[str, str]) -> Table:
    """What each further candidate costs, below it how much that is less than `image_verifier`'s."""
    cost_by_name = {name: _per_candidate(entry) for name, entry in suite_costs.searches.items()}
    reference = image_verifier(suite_costs, reads)
    rows = [
        [
            Cell(name),
            *(
                _cost(value, cost_by_name[reference][index] if reference else value)
                for index, value in enumerate(values)
            ),
        ]
        for name, values in cost_by_name.items()
    ]
    return Table(["Verifier", "Time, ms", "Work, GFLOP", "Memory, MB"], rows)


def image_verifier(suite_costs: SuiteCosts, reads: Mapping[str, str]) -> str | None:
    """The first verifier for which every candidate is decoded; `reads` names by verifier where each judges."""
    return next((name for name in suite_costs.searches if reads[name] == str(IMAGE)), None)


def percent(figure: Interval | None) -> Cell:
    """A share in per cent, above its interval."""
    if figure is None or math.isnan(figure.estimate):
        return Cell(EMPTY_CELL)
    estimate, low, high = (_number(100 * value, 1) for value in (figure.estimate, figure.low, figure.high))
    return Cell(estimate, f"{low} to {high}")


def _tasks(row: Averages) -> list[Cell]:
    return [percent(getattr(row, task)) for task in TASKS]


def _per_candidate(entry: SearchCosts) -> tuple[float, float, float]:
    """Milliseconds, GFLOP and MB that one more candidate adds; nan where only N = 1 was measured."""
    return _slope(entry.milliseconds), entry.candidate_flops / _GIGA, _slope(entry.scoring_bytes) / _MEGA


def _slope(by_n: Mapping[int, float]) -> float:
    first, last = min(by_n), max(by_n)
    return (by_n[last] - by_n[first]) / (last - first) if last > first else math.nan


def _cost(value: float, reference: float) -> Cell:
    saving = 100 * (1 - value / reference) if reference else 0.0
    detail = f"{abs(saving):.1f} % {'less' if saving > 0 else 'more'}" if saving else ""
    return Cell(_number(value, 1 if value >= 10 else 2), detail)


def _number(value: float | None, digits: int) -> str:
    return EMPTY_CELL if value is None or math.isnan(value) else f"{value:.{digits}f}".replace("-", "−")


def _probability(p: float) -> str:
    return "< 0.001" if p < 0.001 else f"{p:.3f}"
