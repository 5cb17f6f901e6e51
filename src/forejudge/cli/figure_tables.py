"""The miniature's test figures, for the eye."""

from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from forejudge.evaluation.metadata import TASKS


def print_figures(figures: dict[str, Any]) -> None:
    """Best-of-N by chooser and task, then every verifier's figures."""
    console = Console()
    console.print(_best_of_n(figures))
    console.print(_verifiers(figures["verifiers"]))


def print_variants(figures: dict[str, Any]) -> None:
    """A row for each variant of a comparison."""
    Console().print(_verifiers(figures["variants"]))


def _best_of_n(figures: dict[str, Any]) -> Table:
    columns = ("micro", "macro", *TASKS)
    title = f"Best-of-N, % right: {figures['test_cases']} test cases, {figures['seeds']} seeds, 95 % intervals"
    table = Table("N", "chosen by", *(name.replace("_", " ") for name in columns), title=title, box=SIMPLE_HEAD)
    for row in figures["best_of_n"]:
        table.add_row(str(row["n"]), row["chosen_by"], *(_percent(row[column]) for column in columns))
    return table


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
