"""Results, reports and profiles on the terminal."""

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

from forejudge.cli.common import new_console
from forejudge.errors import printable

if TYPE_CHECKING:
    from forejudge import Result
    from forejudge.evaluation.report import EvaluationReport
    from forejudge.evaluation.score_folder import ScoreSummary
    from forejudge.evaluation.study_report import StudyReport
    from forejudge.profiling.figures import Profile
    from forejudge.report.tables import Table as NeutralTable
    from forejudge.result import CandidateRecord, SearchRecord

_SCORE_FORMATS = {"probability": ".3f", "p_yes": ".3f", "p_no": ".3f", "log_odds": "+.2f", "score": ".3f"}

_MAX_WORD_WIDTH = 16  # up to here, words of a name are not broken
_NARROW_HEADINGS = {
    "Best of": "N",
    "Single object": "one",
    "Two objects": "two",
    "Counting": "count",
    "Colors": "color",
    "Position": "place",
    "Attribution": "attr.",
    "Overall": "all",
    "Calibration error": "calibr. error",
    "Pair accuracy, %": "pair acc., %",
}


def print_table(table: "NeutralTable", details: bool = True) -> None:
    """Print a table below its title. A cell's detail gets a line of its own, or none without `details`."""
    shown = Table(box=SIMPLE_HEAD, collapse_padding=True, pad_edge=False)
    for index, heading in enumerate(table.headings):
        is_name = index < table.names
        words = [word for row in table.rows for word in row[index].text.split()] if is_name else []
        width = min(max(map(len, words)), _MAX_WORD_WIDTH) if words else None
        heading = _NARROW_HEADINGS.get(heading, heading.removeprefix("Budget, "))
        shown.add_column(heading, justify="left" if is_name else "right", min_width=width, overflow="fold")
    for number, row in enumerate(table.rows):
        if number and number in table.groups:
            shown.add_section()
        shown.add_row(*(f"{cell.text}\n{cell.detail}" if details and cell.detail else cell.text for cell in row))
    console = new_console()
    console.print(Text(printable(table.title), style="bold"), soft_wrap=True)
    console.print(shown)


def print_report(report: "EvaluationReport") -> None:
    """Print Best-of-N by strategy, each verifier's ranking, the equal-time table, and second evaluators."""
    from forejudge.report import tables

    names = {name: f"no verifier, {name}" for name in report.baselines}
    print_table(tables.best_of_n(f"Best-of-N on {tables.describe_test_set(report)}", report.best_of_n))
    print_table(tables.ranking(report))
    title = "At equal time: accuracy in %, and p of no difference from the first strategy of each budget"
    print_table(tables.equal_cost(title, "ms", report.equal_time, names), details=False)
    if report.competitor_time:
        title = f"{next(iter(report.verifiers))} at the time of each other strategy with its own N"
        print_table(tables.competitors(title, "ms", report.competitor_time, names), details=False)
    if report.equal_mean_time:
        title = "At equal mean time: accuracy in %, and the lead over fixed Best-of-N of the first verifier in points"
        print_table(tables.mean_cost(title, "ms", report.equal_mean_time, names), details=False)
    for name, evaluator in report.second_evaluators.items():
        print_table(tables.second_evaluator(name, evaluator))


def print_study(report: "StudyReport") -> None:
    """Print a row for each variant of a study."""
    from forejudge.report import tables

    print_table(tables.study(report))


def print_profile(profile: "Profile") -> None:
    """Print what was measured, then stages, and searches, memory, savings and deadlines if there are any."""
    from forejudge.report import profile_tables as tables

    console, settings, rates = new_console(), profile.settings, profile.rates
    console.print(f"Figures {settings.device_note} ({profile.provenance['device']}).", style="bold")
    console.print(
        f"{settings.models}, {settings.width} x {settings.height} px; the device multiplies at "
        f"{tables.format_si(rates.flops_per_second, 'FLOP/s')} and moves "
        f"{tables.format_si(rates.bytes_per_second, 'B/s')}."
    )
    print_table(tables.stages(profile))
    if profile.strategies:
        print_table(tables.searches(profile))
        print_table(tables.memory(profile))
    if profile.savings:
        print_table(tables.savings(profile.savings))
    if profile.deadline_adherence:
        print_table(tables.deadlines(profile.deadline_adherence))


def print_scores(summary: "ScoreSummary") -> None:
    """Print a row for each task of a scored folder, then the averages."""
    table = Table("task", "images", "accuracy, %", "95 % interval", box=SIMPLE_HEAD)
    rows = [(task.replace("_", " "), score.images, score) for task, score in summary.tasks.items()]
    averages = {"micro, over images": summary.micro, f"macro, over {len(summary.tasks)} tasks": summary.macro}
    for name, images, figure in [*rows, *((name, summary.images, average) for name, average in averages.items())]:
        interval = f"{100 * figure.low:.0f}-{100 * figure.high:.0f}"
        table.add_row(name, str(images), f"{100 * figure.estimate:.1f}", interval)
    new_console().print(table)


def format_answer(candidate: "CandidateRecord") -> str:
    """Return yes or no, broken for an image that is not finite, or nothing without a calibrated probability."""
    from forejudge.types import passed

    if candidate.broken:
        return "broken"
    says_yes = passed(candidate.probability)
    return "" if says_yes is None else "yes" if says_yes else "no"


def format_probability(candidate: "CandidateRecord") -> str:
    """Return the calibrated probability, or the score where there is none; `p_yes` is not calibrated."""
    if candidate.probability is None:
        return f"score {candidate.score:.2f}"
    return f"prob. {candidate.probability:.2f}"


def describe_stop(record: "SearchRecord") -> str:
    """Say why the search ended, and how to reproduce its candidates."""
    reason = {
        "n": f"All {record.n} candidates were scored.",
        "max_n": f"Stopped at --max-n after {record.n} candidates.",
        "budget_ms": f"Stopped by --budget-ms after {record.n} candidates; --n {record.n} repeats them.",
        "price": f"Stopped by --price after {record.n} candidates: others would add too little; --n {record.n} "
        "repeats them.",
        "until": f"Stopped at candidate {record.n - 1}, the first to reach --until; --n {record.n} repeats them.",
    }[record.stopped_by]
    return reason + (f" {record.unused} candidates of the last batch went unused." if record.unused else "")


def describe_winner(record: "SearchRecord") -> str:
    """Describe the winner, and say where it did not pass."""
    winner = record.candidates[record.winner]
    text = f"Winner: candidate {winner.index}, seed {winner.seed}, {format_probability(winner)}."
    if winner.refined:
        text += f" Its probability is below --refine-below: finished in {record.settings.sampling.steps + 1} steps."
    if record.passed is False:
        text += " No candidate passed: no probability reached 0.5. The best one is returned all the same."
    return text


def show_result(result: "Result", folder: Path) -> None:
    """Print the candidates, the times, the winner and why the search ended."""
    console = new_console()
    console.print(Text(printable(result.record.prompt), style="bold"))
    console.print(candidates_table(result.record))
    console.print(timings_table(result))
    style = "yellow" if result.record.passed is False else "green"
    console.print(Text(describe_winner(result.record), style=style))
    console.print(Text(describe_stop(result.record)))
    console.print(Text(printable(f"Written to {folder}")), soft_wrap=True)


def show_warnings(warnings: Iterable[str]) -> None:
    """Print warnings on stderr, one line each."""
    for warning in warnings:
        new_console(stderr=True).print(Text(printable(f"warning: {warning}"), style="yellow"), soft_wrap=True)


def candidates_table(record: "SearchRecord") -> Table:
    """Lay out the candidates, 80 characters wide; figures the verifier doesn't give have no column."""
    from forejudge.types import BROKEN

    score_names = _available_scores(record.candidates[record.winner])
    table = _table()
    table.add_column("")
    for name in ("#", "seed", *map(_heading, score_names)):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("answer")
    table.add_column("stage")
    for candidate in record.candidates:
        is_winner = candidate.index == record.winner
        scores = [(name, getattr(candidate, name)) for name in score_names]
        values = [
            "" if score in (None, BROKEN.score) else format(score, _SCORE_FORMATS[name]) for name, score in scores
        ]
        cells = (">" if is_winner else "", str(candidate.index), str(candidate.seed), *values)
        table.add_row(*cells, format_answer(candidate), candidate.stage, style="bold green" if is_winner else None)
    return table


def _table() -> Table:
    return Table(box=SIMPLE_HEAD, collapse_padding=True, pad_edge=False)


def _heading(score_name: str) -> str:
    return {"probability": "prob", "log_odds": "log\nodds"}.get(score_name, score_name.replace("_", " "))


def _available_scores(candidate: "CandidateRecord") -> list[str]:
    """Return the figures to show: the score alone where there are no others, as it otherwise repeats one of them."""
    names = [name for name in _SCORE_FORMATS if name != "score" and getattr(candidate, name) is not None]
    return names or ["score"]


def timings_table(result: "Result") -> Table:
    """Lay out the milliseconds of each stage."""
    record = result.record
    num_candidates_text, finished = f"candidates: {record.n + record.unused}", f"finished images: {len(result.images)}"
    descriptions = {
        "encode": "prompt",
        "prefix": num_candidates_text,
        "verify": num_candidates_text,
        "suffix": finished,
        "decode": finished,
    }
    table = _table()
    table.add_column("stage")
    table.add_column("ms", justify="right")
    table.add_column("input")
    for stage, seconds in record.timings.items():
        table.add_row(stage, f"{seconds * 1000:.1f}", descriptions.get(stage, ""))
    return table
