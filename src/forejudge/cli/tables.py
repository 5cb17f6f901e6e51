"""What a search found, for the eye."""

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from forejudge.profiling.figures import PAPER
from forejudge.prompts.geneval import TASKS
from forejudge.types import passed

if TYPE_CHECKING:
    from forejudge import Result
    from forejudge.profiling.figures import Profile, Saving, TimingWithRoofline
    from forejudge.result import CandidateRecord, SearchRecord


# FOLDED: Figures of tests and comparisons, for the eye.


def print_figures(figures: dict[str, Any]) -> None:
    """Best-of-N by chooser, each verifier's ranking, what is reached at equal time, and second evaluators."""
    console = Console(highlight=False)
    title = f"Best-of-N, % right of {figures['test_cases']} cases, {figures['seeds']} seeds, with 95 % intervals"
    console.print(_best_of_n(figures["best_of_n"], title))
    console.print(_verifiers(figures["verifiers"]))
    console.print(_equal_cost(figures["equal_time"]))
    for name, evaluation in figures["second_evaluators"].items():
        console.print(_best_of_n(evaluation["best_of_n"], _agreement_title(name, evaluation)))


def print_variants(figures: dict[str, Any]) -> None:
    """A row for each variant of a study; of what was so before training, only that in which they differ."""
    variants = figures["variants"]
    hidden = {
        "generator_fingerprint",
        *(field for field in _PRE_TRAINING_FIELDS if not variants_differ(variants, field)),
    }
    visible = {
        name: {field: value for field, value in found.items() if field not in hidden}
        for name, found in variants.items()
    }
    Console().print(_verifiers(visible))


def variants_differ(variants: dict[str, Any], field: str) -> bool:
    """Whether a study's variants have more than one value there."""
    return any(found[field] != other[field] for found in variants.values() for other in variants.values())


_PRE_TRAINING_FIELDS = ("reads", "language_model_parameters", "best_of_1", "oracle")


def _agreement_title(name: str, evaluation: dict[str, Any]) -> str:
    share, kappa = evaluation["agreement"]["estimate"], evaluation["cohens_kappa"]["estimate"]
    return f"The same by {name}, which agrees on {100 * share:.1f} % of the candidates (Cohen's kappa {kappa:.2f})"


def _best_of_n(rows: list[dict[str, Any]], title: str) -> Table:
    """Overall (micro), a column for each N."""
    ns = sorted({row["n"] for row in rows})
    table = Table("chosen by", *(f"N = {n}" for n in ns), title=title, box=SIMPLE_HEAD)
    for strategy in dict.fromkeys(row["strategy"] for row in rows):
        of = {row["n"]: row["micro"] for row in rows if row["strategy"] == strategy}
        table.add_row(strategy, *(_percent(of[n]) for n in ns))
    return table


def _equal_cost(rows: list[dict[str, Any]]) -> Table:
    """The paper's table: for each budget what every way to choose reaches."""
    title = "At equal time, % right, with p of there being no difference to the first of each budget"
    table = Table(
        "ms", "chosen by", "N", "overall", *(_HEADINGS[task] for task in TASKS), "p", title=title, box=SIMPLE_HEAD
    )
    for row in rows:
        tasks = [f"{100 * row[task]['estimate']:.0f}" if task in row else "" for task in TASKS]
        p = row["reference_lead"]["p"]
        budget = f"{row['budget']:.0f}"
        table.add_row(budget, row["strategy"], str(row["n"]), _percent(row["micro"]), *tasks, f"{p:.3f}")
    return table


_HEADINGS = {
    "single_object": "one",
    "two_object": "two",
    "counting": "count",
    "colors": "color",
    "position": "place",
    "color_attr": "attr",
}


def _verifiers(verifiers: dict[str, Any]) -> Table:
    names = list(next(iter(verifiers.values())))
    table = Table("verifier", *(name.replace("_", " ") for name in names), box=SIMPLE_HEAD)
    for verifier, figures in verifiers.items():
        table.add_row(verifier, *(_cell(figures[name]) for name in names))
    return table


def _cell(value: Any) -> str:
    if isinstance(value, list):
        return ", ".join(f"{100 * each:.1f}" for each in value)
    return _percent(value) if isinstance(value, dict) else f"{value:.3f}" if isinstance(value, float) else str(value)


def print_scores(summary: dict[str, Any]) -> None:
    """A row for each task of a folder of pictures, then the averages."""
    table = Table("task", "images", "% right", "95 % interval", box=SIMPLE_HEAD)
    averages = {"micro, over images": summary["micro"], f"macro, over {len(summary['tasks'])} tasks": summary["macro"]}
    for task, figure in (summary["tasks"] | averages).items():
        estimate, interval = _percent(figure).split("\n")
        table.add_row(task.replace("_", " "), str(figure.get("images", summary["images"])), estimate, interval)
    Console(highlight=False).print(table)


def _percent(figure: dict[str, float]) -> str:
    """An estimate, and its interval on a line of its own."""
    estimate, low, high = (100 * figure[name] for name in ("estimate", "low", "high"))
    return f"{estimate:.1f}\n{low:.0f}-{high:.0f}"


# FOLDED: A profile for the eye.


def print_profile(found: "Profile") -> None:
    """What was measured, every stage, every way to pick, what each holds in memory, and what ours save."""
    console, settings, rates = Console(highlight=False), found.settings, found.rates
    console.print(f"Figures {settings.device_note} ({found.provenance['device']}).", style="bold")
    console.print(
        f"{settings.models}, {settings.width} x {settings.height} px; the device multiplies at "
        f"{_format_si(rates.flops_per_second, 'FLOP/s')} and moves {_format_si(rates.bytes_per_second, 'B/s')}."
    )
    console.print(stages_table(found))
    console.print(strategies_table(found))
    console.print(memory_table(found))
    if found.savings:
        console.print(savings_table(found))
    if found.deadline_adherence:
        console.print(budgets_table(found))


def stages_table(found: "Profile") -> Table:
    """A column for each batch size."""
    ns = found.settings.ns
    table = _profile_table("Stages, ms and how many times the floor, by batch size", "stage", "FLOP", *map(str, ns))
    for name, stage in found.stages.items():
        table.add_row(name, _format_si(stage.flops), *(_time(stage.measurements.get(n)) for n in ns))
    return table


def strategies_table(found: "Profile") -> Table:
    """A column for each N, then what one more candidate costs."""
    ns = found.settings.ns
    title = "From the prompt to the picture, ms and how many times the floor, by N"
    table = _profile_table(title, "strategy", "at once", *map(str, ns), "one more: ms", "FLOP", "B")
    for figures in found.strategies:
        marginal = figures.marginal_cost
        marginal_cells = (
            (f"{marginal.milliseconds:.1f}", _format_si(marginal.flops), _format_si(marginal.bytes))
            if marginal
            else ("", "", "")
        )
        table.add_row(
            figures.name, str(figures.batch_size), *(_time(figures.measurements.get(n)) for n in ns), *marginal_cells
        )
    return table


def memory_table(found: "Profile") -> Table:
    """The most that is held beside the weights."""
    ns = sorted({n for figures in found.strategies for n in figures.memory.scoring})
    title = "Memory beside the weights, B: while candidates are judged, and of the whole run, by N"
    table = _profile_table(title, "strategy", "weights", *map(str, ns))
    for figures in found.strategies:
        memory = figures.memory
        cells = [
            f"{_format_si(memory.scoring[n])}\n{_format_si(memory.end_to_end[n]) if n in memory.end_to_end else ''}"
            for n in ns
        ]
        table.add_row(figures.name, _format_si(memory.weights), *cells)
    return table


def savings_table(found: "Profile") -> Table:
    """Beside what the paper says."""
    title = "Saved, %: of one more candidate's time and FLOPs, and of all memory for the first one"
    table = _profile_table(title, "", "against", "time", "FLOPs", "memory\nscoring", "memory\nend to end")
    for saving in (*found.savings, PAPER):
        table.add_row(*_saving_cells(saving), style="dim" if saving is PAPER else None)
    return table


def budgets_table(found: "Profile") -> Table:
    """A row for each budget."""
    title = "Searches under a time budget"
    headings = (
        "ms",
        "searches",
        "N promised, median",
        "kept, %",
        "N, median",
        "N, least",
        "in time, %",
        "95 % interval",
        "slowest, ms",
    )
    table = _profile_table(title, *headings)
    for budget in found.deadline_adherence:
        low, high = budget.on_time_interval
        table.add_row(
            f"{budget.budget_ms:g}",
            str(budget.runs),
            f"{budget.median_predicted_n:g}",
            f"{100 * budget.reached_predicted_n:.0f}",
            f"{budget.median_n:g}",
            str(budget.min_n),
            f"{100 * budget.on_time:.0f}",
            f"{100 * low:.1f} to {100 * high:.1f}",
            f"{budget.slowest:.0f}",
        )
    return table


def _saving_cells(saving: "Saving") -> tuple[str, ...]:
    shares = (saving.milliseconds, saving.flops, saving.scoring_bytes, saving.end_to_end_bytes)
    row_name = f"{saving.strategy} (paper)" if saving is PAPER else saving.strategy
    return (row_name, saving.baseline, *("" if share is None else f"{share:.1f}" for share in shares))


def _profile_table(title: str, first: str, *others: str) -> Table:
    table = Table(title=title, box=SIMPLE_HEAD, collapse_padding=True, pad_edge=False)
    table.add_column(first)
    for heading in others:
        table.add_column(heading, justify="left" if heading == "against" else "right")
    return table


def _time(measured: "TimingWithRoofline | None") -> str:
    if measured is None:
        return ""
    return f"{measured.milliseconds.median:.1f}\n×{measured.roofline_ratio:.1f}"


def _format_si(value: float, unit: str = "") -> str:
    """With a letter for the power of 1000."""
    for si_prefix in ("", "k", "M", "G", "T", "P"):
        if abs(value) < 999.5 or si_prefix == "P":
            return f"{value:.3g} {si_prefix}{unit}".rstrip()
        value /= 1000
    raise AssertionError("unreachable")


# FOLDED: A verdict in words, for tables and captions.


def format_answer(candidate: "CandidateRecord") -> str:
    """yes or no; empty where the verifier has no calibrated probability."""
    says_yes = passed(candidate.probability)
    return "" if says_yes is None else "yes" if says_yes else "no"


def format_probability(candidate: "CandidateRecord") -> str:
    """The probability of yes, or the bare score where there is none."""
    if candidate.probability is None:
        return f"score {candidate.score:.2f}"
    return f"p(yes) {candidate.probability:.2f}"


def describe_stop(record: "SearchRecord") -> str:
    """Who ended the search, and how the same candidates are drawn again."""
    reason = {
        "n": f"All {record.n} candidates asked for were judged.",
        "max_n": f"Ended by max-n after {record.n} candidates.",
        "budget_ms": f"Ended by budget-ms after {record.n} candidates; --n {record.n} repeats them.",
        "until": f"Ended by until at candidate {record.n - 1}; --n {record.n} repeats them.",
    }[record.stopped_by]
    return reason + (f" {record.unused} drawn beside the last one went unused." if record.unused else "")


def describe_winner(record: "SearchRecord") -> str:
    """The winner, and whether it passed."""
    winner = record.candidates[record.winner]
    text = f"Winner: candidate {winner.index}, seed {winner.seed}, {format_probability(winner)}."
    if record.passed is False:
        text += " No candidate passed: no verdict reached 0.5. The best of them is returned all the same."
    return text


_FORMATS = {"probability": ".3f", "p_yes": ".3f", "p_no": ".3f", "log_odds": "+.2f", "score": ".3f"}


def show_result(result: "Result", folder: Path) -> None:
    """Print the candidates, the times and what came of it."""
    console = Console(highlight=False)
    console.print(Text(result.record.prompt, style="bold"))
    console.print(candidates_table(result.record))
    console.print(timings_table(result))
    style = "yellow" if result.record.passed is False else "green"
    console.print(Text(describe_winner(result.record), style=style))
    console.print(Text(describe_stop(result.record)))
    console.print(Text(f"Written to {folder}"), soft_wrap=True)


def show_warnings(warnings: Iterable[str]) -> None:
    """One line each, on stderr."""
    for warning in warnings:
        Console(stderr=True, highlight=False).print(Text(f"warning: {warning}", style="yellow"), soft_wrap=True)


def candidates_table(record: "SearchRecord") -> Table:
    """A row for each candidate; numbers that the verifier does not give have no column. Fits 80 letters."""
    score_names = _available_scores(record.candidates[0])
    table = _table()
    table.add_column("")
    for name in ("#", "seed", *map(_heading, score_names)):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("says")
    table.add_column("drawn to")
    for candidate in record.candidates:
        is_winner = candidate.index == record.winner
        values = [format(getattr(candidate, name), _FORMATS[name]) for name in score_names]
        cells = (">" if is_winner else "", str(candidate.index), str(candidate.seed), *values)
        table.add_row(*cells, format_answer(candidate), candidate.stage, style="bold green" if is_winner else None)
    return table


def _table() -> Table:
    return Table(box=SIMPLE_HEAD, collapse_padding=True, pad_edge=False)


def _heading(score_name: str) -> str:
    return {"probability": "prob", "log_odds": "log\nodds"}.get(score_name, score_name.replace("_", " "))


def _available_scores(candidate: "CandidateRecord") -> list[str]:
    """The score stands for the others where there are none: elsewhere it repeats one of them."""
    names = [name for name in _FORMATS if name != "score" and getattr(candidate, name) is not None]
    return names or ["score"]


def timings_table(result: "Result") -> Table:
    """Milliseconds by stage, with what was done in each."""
    record = result.record
    num_candidates_text, finished = (
        f"candidates: {record.n + record.unused}",
        f"finished pictures: {len(result.images)}",
    )
    descriptions = {
        "encode": "the prompt",
        "prefix": num_candidates_text,
        "verify": num_candidates_text,
        "suffix": finished,
        "decode": finished,
    }
    table = _table()
    table.add_column("stage")
    table.add_column("ms", justify="right")
    table.add_column("spent on")
    for stage, seconds in record.timings.items():
        table.add_row(stage, f"{seconds * 1000:.1f}", descriptions.get(stage, ""))
    return table
