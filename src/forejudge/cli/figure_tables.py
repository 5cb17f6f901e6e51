"""Figures of tests and comparisons, for the eye."""

from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from forejudge.evaluation.metadata import TASKS


def print_figures(figures: dict[str, Any]) -> None:
    """Best-of-N by chooser, each verifier's ranking, what is reached at equal time, and second evaluators."""
    console = Console(highlight=False)
    title = f"Best-of-N, % right of {figures['test_cases']} cases, {figures['seeds']} seeds, with 95 % intervals"
    console.print(_best_of_n(figures["best_of_n"], title))
    console.print(_verifiers(figures["verifiers"]))
    console.print(_equal_cost(figures["equal_time"]))
    for name, judged in figures["second_evaluators"].items():
        console.print(_best_of_n(judged["best_of_n"], _agreement(name, judged)))


def print_variants(figures: dict[str, Any]) -> None:
    """A row for each variant of a study; of what was so before training, only that in which they differ."""
    variants = figures["variants"]
    hidden = {"generator_fingerprint", *(field for field in _BEFORE if not differ(variants, field))}
    shown = {
        name: {field: value for field, value in found.items() if field not in hidden}
        for name, found in variants.items()
    }
    Console().print(_verifiers(shown))


def differ(variants: dict[str, Any], field: str) -> bool:
    """Whether a study's variants have more than one value there."""
    return any(found[field] != other[field] for found in variants.values() for other in variants.values())


_BEFORE = ("reads", "language_model_parameters", "best_of_1", "perfect_judge")


def _agreement(name: str, judged: dict[str, Any]) -> str:
    share, kappa = judged["agreement"]["estimate"], judged["cohens_kappa"]["estimate"]
    return f"The same by {name}, which agrees on {100 * share:.1f} % of the candidates (Cohen's kappa {kappa:.2f})"


def _best_of_n(rows: list[dict[str, Any]], title: str) -> Table:
    """Overall (micro), a column for each N."""
    ns = sorted({row["n"] for row in rows})
    table = Table("chosen by", *(f"N = {n}" for n in ns), title=title, box=SIMPLE_HEAD)
    for chooser in dict.fromkeys(row["chosen_by"] for row in rows):
        of = {row["n"]: row["micro"] for row in rows if row["chosen_by"] == chooser}
        table.add_row(chooser, *(_percent(of[n]) for n in ns))
    return table


def _equal_cost(rows: list[dict[str, Any]]) -> Table:
    """The paper's table: for each budget what every way to choose reaches."""
    title = "At equal time, % right, with p of there being no difference to the first of each budget"
    table = Table(
        "ms", "chosen by", "N", "overall", *(_HEADINGS[task] for task in TASKS), "p", title=title, box=SIMPLE_HEAD
    )
    for row in rows:
        tasks = [f"{100 * row[task]['estimate']:.0f}" if task in row else "" for task in TASKS]
        p = row["reference_ahead_by"]["p"]
        budget = f"{row['budget']:.0f}"
        table.add_row(budget, row["chosen_by"], str(row["n"]), _percent(row["micro"]), *tasks, f"{p:.3f}")
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
