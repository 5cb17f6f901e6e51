"""Tables of formatted cells, for the terminal, the HTML report and the Markdown documents alike."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

from forejudge.evaluation.bootstrap import Averages, Interval
from forejudge.evaluation.equal_cost import CostCurve
from forejudge.evaluation.report import (
    BestOfNRow,
    CompetitorRow,
    EqualCostRow,
    EvaluationCosts,
    EvaluationReport,
    MeanCostRow,
    RankingMetrics,
    SecondEvaluator,
    SecondEvaluatorRow,
)
from forejudge.evaluation.study_report import StudyReport, VariantReport
from forejudge.profiling.figures import SearchCosts
from forejudge.prompts.geneval import TASKS, Task
from forejudge.simulation.report import SimulatedRule, SimulationReport

TASK_NAMES: Mapping[Task, str] = {
    "single_object": "Single object",
    "two_object": "Two objects",
    "counting": "Counting",
    "colors": "Colors",
    "position": "Position",
    "color_attr": "Attribution",
}
EMPTY = "–"
_GIGA, _MEGA = 1e9, 1e6
_SCORED_AT_ONCE = 8  # N at which memory is compared

Names = Mapping[str, str]
"""Labels for strategies in the first columns; a strategy without one keeps its name."""
NO_NAMES: Names = MappingProxyType({})


@dataclass(frozen=True)
class Cell:
    """One cell: its text, and a detail such as an interval that a renderer sets smaller or below."""

    text: str
    detail: str = ""


@dataclass(frozen=True)
class Table:
    """A titled table: the first `names` columns name a row, the others hold numbers.

    `groups` are the indices of rows that open a group.
    """

    title: str
    headings: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    names: int = 1
    groups: frozenset[int] = frozenset()


def describe_test_set(report: EvaluationReport) -> str:
    """Describe the test set and how its figures are to be read."""
    return (
        f"{report.test_cases} test cases ({report.distinct_prompts} prompts), {report.seeds} seeds, accuracy in %, "
        "95 % intervals over prompts"
    )


def best_of_n(title: str, rows: Sequence[BestOfNRow] | Sequence[SecondEvaluatorRow], names: Names = NO_NAMES) -> Table:
    """Lay out the micro average, a row for each strategy and a column for each N."""
    ns = sorted({row.n for row in rows})
    micro = {(row.strategy, row.n): row.micro for row in rows}
    strategies = dict.fromkeys(row.strategy for row in rows)
    return Table(
        title,
        ["Strategy", *(f"Best of {n}" for n in ns)],
        [[Cell(names.get(each, each)), *(percent(micro[each, n]) for n in ns)] for each in strategies],
    )


def second_evaluator(name: str, evaluator: SecondEvaluator, names: Names = NO_NAMES) -> Table:
    """Lay out Best-of-N as a second evaluator sees it, its agreement with the first in the title."""
    agreement, kappa = percent(evaluator.agreement), evaluator.cohens_kappa.estimate
    title = (
        f"As evaluated by {name}, which agrees with the first evaluator on {agreement.text} % {agreement.detail} of "
        f"the candidates (Cohen's kappa {kappa:.2f})"
    )
    return best_of_n(title, evaluator.best_of_n, names)


def equal_cost(
    title: str, unit: str, rows: Sequence[EqualCostRow], names: Names = NO_NAMES, task_intervals: bool = False
) -> Table:
    """Lay out the equal-cost table: for each budget the N and the accuracy of every strategy that fits.

    N has its 95 % interval where the timing leaves it open. p is that of no difference from the budget's first
    strategy, whose own p is left open.
    """
    opens = [index for index, row in enumerate(rows) if index == 0 or row.budget != rows[index - 1].budget]

    def cells(index: int, row: EqualCostRow) -> list[Cell]:
        p = EMPTY if index in opens else f"{row.reference_lead.p:.3f}"
        keys = Cell(f"{row.budget:.0f}"), Cell(names.get(row.strategy, row.strategy)), _n_cell(row.n, row.n_interval)
        return [*keys, *task_cells(row, task_intervals), percent(row.micro), Cell(p)]

    headings = [f"Budget, {unit}", "Strategy", "Best of", *TASK_NAMES.values(), "Overall", "p"]
    return Table(
        title, headings, [cells(index, row) for index, row in enumerate(rows)], names=2, groups=frozenset(opens)
    )


def competitors(title: str, unit: str, rows: Sequence[CompetitorRow], names: Names = NO_NAMES) -> Table:
    """Lay out the lead of the reference at the cost of each competitor's own N."""
    opens = [index for index, row in enumerate(rows) if index == 0 or row.competitor != rows[index - 1].competitor]
    cells = [
        [
            Cell(names.get(row.competitor, row.competitor)),
            Cell(str(row.n)),
            Cell(f"{row.cost:.0f}"),
            percent(row.accuracy),
            _n_cell(row.reference_n, row.reference_n_interval),
            percent(row.reference_accuracy),
            percent(row.lead),
            Cell(f"{row.lead.p:.3f}"),
        ]
        for row in rows
    ]
    reference = names.get(rows[0].reference, rows[0].reference) if rows else EMPTY
    headings = ["Strategy", "Best of", f"Cost, {unit}", "Overall", f"{reference}: Best of", "Overall", "Lead", "p"]
    return Table(title, headings, cells, groups=frozenset(opens))


def mean_cost(title: str, unit: str, rows: Sequence[MeanCostRow], names: Names = NO_NAMES) -> Table:
    """Lay out everything at equal mean cost, with the lead over the first strategy at the same mean cost.

    Its own lead is left open. `Worse on` names tasks on which a strategy falls behind with its whole interval.
    """
    opens = [index for index, row in enumerate(rows) if index == 0 or row.budget != rows[index - 1].budget]
    evaluators = dict.fromkeys(name for row in rows for name in row.second_evaluators)
    headings = [
        *(f"Mean cost, {unit}", "Strategy", "Options", *TASK_NAMES.values(), "Overall", "Lead", "p", "Worse on"),
        *("N mean", "N p50, p90, p99", "Second steps, %", *(f"By {name}" for name in evaluators)),
    ]

    def cells(row: MeanCostRow) -> list[Cell]:
        is_first = (row.verifier, row.policy) == (rows[0].verifier, rows[0].policy)
        strategy = row.policy if row.verifier is None else row.verifier
        worse = ", ".join(TASK_NAMES[task] for task, lead in row.task_leads.items() if lead.high < 0)
        counts = row.candidates
        return [
            *(
                Cell(f"{row.cost:.1f}"),
                Cell(names.get(strategy, strategy)),
                Cell(row.policy if row.verifier else EMPTY),
            ),
            *(*task_cells(row), percent(row.micro)),
            *((Cell(EMPTY), Cell(EMPTY)) if is_first else (percent(row.lead), Cell(f"{row.lead.p:.3f}"))),
            *(Cell(worse or EMPTY), Cell(number(counts.mean, 1))),
            Cell(f"{counts.p50:.0f}, {counts.p90:.0f}, {counts.p99:.0f}"),
            Cell(number(100 * row.second_steps, 0)),
            *(percent(row.second_evaluators.get(name)) for name in evaluators),
        ]

    return Table(title, headings, [cells(row) for row in rows], names=3, groups=frozenset(opens))


def _n_cell(n: int, interval: tuple[int, int] | None) -> Cell:
    is_open = interval is not None and interval != (n, n)
    return Cell(str(n), f"[{interval[0]}, {interval[1]}]" if interval and is_open else "")


def task_cells(averages: Averages, intervals: bool = False) -> list[Cell]:
    """Format the accuracy on each task; tasks without cases are left open."""
    cells = [percent(averages.tasks.get(task)) for task in TASKS]
    return cells if intervals else [Cell(cell.text) for cell in cells]


def ranking(report: EvaluationReport, names: Names = NO_NAMES) -> Table:
    """Lay out how well each verifier ranks candidates."""
    n = min(min(verifier.oracle_gap_closed) for verifier in report.verifiers.values())
    rows = [
        [
            Cell(names.get(name, name)),
            Cell(report.settings.reads[name]),
            percent(verifier.oracle_gap_closed[n]),
            *_ranking_cells(verifier),
            Cell(number(100 * verifier.tie_rate, 1)),
        ]
        for name, verifier in report.verifiers.items()
    ]
    headings = ["Verifier", "Reads", f"Oracle gap closed at N = {n}, %", *_RANKING_HEADINGS, "Ties for the best, %"]
    return Table("How well verifiers rank candidates", headings, rows, names=2)


_RANKING_HEADINGS = ["Pair accuracy, %", "AUROC", "Calibration error"]


def _ranking_cells(metrics: RankingMetrics | VariantReport) -> list[Cell]:
    calibration = number(metrics.expected_calibration_error, 3)
    return [percent(metrics.pair_accuracy), Cell(number(metrics.auroc, 3)), Cell(calibration)]


def costs(evaluation_costs: EvaluationCosts, reads: Mapping[str, str], names: Names = NO_NAMES) -> Table:
    """Lay out the cost of one more candidate, with the difference to `image_verifier` where there is one."""
    by_name = {name: _candidate_costs(search) for name, search in evaluation_costs.searches.items()}
    reference = image_verifier(evaluation_costs, reads)
    rows = [
        [Cell(names.get(name, name)), *map(_cost_cell, own, by_name[reference] if reference else [math.nan] * len(own))]
        for name, own in by_name.items()
    ]
    headings = ["Verifier", "Time, ms", "FLOPs, GFLOP", f"Memory while scoring {_SCORED_AT_ONCE}, MB"]
    return Table("Cost of one more candidate", headings, rows)


def image_verifier(evaluation_costs: EvaluationCosts, reads: Mapping[str, str]) -> str | None:
    """Return the first verifier that reads images, for which every candidate is decoded; None without one."""
    return next((name for name in evaluation_costs.searches if reads[name] == "image"), None)


def _candidate_costs(search: SearchCosts) -> tuple[float, float, float]:
    """Return milliseconds (nan where only one N was measured) and GFLOP of one more candidate, and MB while scoring."""
    curve, first, last = CostCurve.of(search.milliseconds), min(search.milliseconds), max(search.milliseconds)
    milliseconds = curve.cost_at(last) - curve.cost_at(first)
    slope = milliseconds / (last - first) if last > first else math.nan
    return slope, search.candidate_flops / _GIGA, search.scoring_bytes[_SCORED_AT_ONCE] / _MEGA


def _cost_cell(value: float, reference: float) -> Cell:
    is_comparable = reference and not math.isnan(value / reference)
    return Cell(number(value, 1), f"({100 * (value / reference - 1):+.0f} %)" if is_comparable else "")


def study(report: StudyReport) -> Table:
    """Lay out a study: a row for each variant.

    The language model's size, and what the generator's candidates allow, have columns where they differ.
    """
    optional: dict[str, Callable[[VariantReport], Cell]] = {}
    if report.varies(lambda variant: variant.language_model_parameters):
        optional["Parameters of the language model"] = _parameters
    if report.varies(lambda variant: (variant.best_of_1, variant.oracle)):
        optional["Best of 1, %"] = lambda variant: percent(variant.best_of_1)
        optional[f"Oracle's Best of {report.n}, %"] = lambda variant: percent(variant.oracle)
    rows = [
        [
            Cell(name),
            *(cell(variant) for cell in optional.values()),
            percent(variant.best_of_n),
            percent(variant.oracle_gap_closed),
            *_ranking_cells(variant),
            Cell(", ".join(number(100 * each, 1) for each in variant.oracle_gap_closed_per_seed)),
        ]
        for name, variant in report.variants.items()
    ]
    headings = ["Variant", *optional, f"Best of {report.n}, %", "Oracle gap closed, %", *_RANKING_HEADINGS]
    title = (
        f"{report.test_cases} test cases, {report.test_seeds} seed(s), Best of {report.n}, 95 % intervals over "
        f"prompts; {report.training_seeds} training seed(s) of {report.steps} steps each"
    )
    return Table(title, [*headings, "Oracle gap closed by each training seed, %"], rows)


def _parameters(variant: VariantReport) -> Cell:
    return Cell(EMPTY if variant.language_model_parameters is None else f"{variant.language_model_parameters:,}")


def simulation(report: SimulationReport) -> Table:
    """Lay out each rule's mean cost, accuracy and lead over fixed Best-of-N at that cost, by policy."""
    policies = [rule.policy for rule in report.rules]
    opens = [at for at, policy in enumerate(policies) if at == 0 or policy != policies[at - 1]]
    title = (
        f"{report.verifier} on {report.test_cases} recorded cases ({report.distinct_prompts} prompts), {report.orders} "
        f"orders: accuracy in % against mean cost in {report.unit}, 95 % intervals over prompts"
    )
    headings = ["Policy", "Options", "Cost", "Right, %", "Fixed, %", "Lead", "p", "Fixed N", "N p50, p90, p99"]
    return Table(title, headings, [_rule_cells(rule) for rule in report.rules], names=2, groups=frozenset(opens))


def _rule_cells(rule: SimulatedRule) -> list[Cell]:
    counts = rule.candidates
    return [
        Cell(rule.policy),
        Cell(", ".join(f"{name} {value}" for name, value in rule.options.items())),
        Cell(f"{rule.mean_cost:.2f}"),
        percent(rule.accuracy.micro),
        Cell(number(100 * rule.fixed_accuracy, 1)),
        percent(rule.lead),
        Cell(f"{rule.lead.p:.3f}"),
        Cell(str(rule.same_quality_n or EMPTY)),
        Cell(f"{counts.p50:.0f}, {counts.p90:.0f}, {counts.p99:.0f}"),
    ]


def percent(figure: Interval | None) -> Cell:
    """Format a share in per cent with its interval; leave it open where there is none."""
    if figure is None or math.isnan(figure.estimate):
        return Cell(EMPTY)
    estimate, low, high = (number(100 * value, 1) for value in (figure.estimate, figure.low, figure.high))
    return Cell(estimate, f"[{low}, {high}]")


def number(value: float | None, digits: int) -> str:
    """Format a number with a fixed number of decimals; leave it open where there is none."""
    return EMPTY if value is None or math.isnan(value) else f"{value:.{digits}f}"
