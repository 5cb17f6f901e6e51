"""What a search found, for the eye."""

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from forejudge.cli.verdict_text import answer, ending, outcome

if TYPE_CHECKING:
    from forejudge import Result
    from forejudge.result import CandidateRecord, SearchRecord

_FORMATS = {"probability": ".3f", "p_yes": ".3f", "p_no": ".3f", "log_odds": "+.2f", "score": ".3f"}


def show_result(result: "Result", folder: Path) -> None:
    """Print the candidates, the times and what came of it."""
    console = Console(highlight=False)
    console.print(Text(result.record.prompt, style="bold"))
    console.print(candidates_table(result.record))
    console.print(timings_table(result))
    style = "yellow" if result.record.passed is False else "green"
    console.print(Text(outcome(result.record), style=style))
    console.print(Text(ending(result.record)))
    console.print(Text(f"Written to {folder}"), soft_wrap=True)


def show_warnings(warnings: Iterable[str]) -> None:
    """One line each, on stderr."""
    for warning in warnings:
        Console(stderr=True, highlight=False).print(Text(f"warning: {warning}", style="yellow"), soft_wrap=True)


def candidates_table(record: "SearchRecord") -> Table:
    """A row for each candidate; numbers that the verifier does not give have no column. Fits 80 letters."""
    numbers = _numbers_given(record.candidates[0])
    table = _table()
    table.add_column("")
    for name in ("#", "seed", *map(_heading, numbers)):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("says")
    table.add_column("drawn to")
    for candidate in record.candidates:
        won = candidate.index == record.winner
        values = [format(getattr(candidate, name), _FORMATS[name]) for name in numbers]
        cells = (">" if won else "", str(candidate.index), str(candidate.seed), *values)
        table.add_row(*cells, answer(candidate), candidate.stage, style="bold green" if won else None)
    return table


def _table() -> Table:
    return Table(box=SIMPLE_HEAD, collapse_padding=True, pad_edge=False)


def _heading(number: str) -> str:
    return {"probability": "prob", "log_odds": "log\nodds"}.get(number, number.replace("_", " "))


def _numbers_given(candidate: "CandidateRecord") -> list[str]:
    """The score stands for the others where there are none: elsewhere it repeats one of them."""
    names = [name for name in _FORMATS if name != "score" and getattr(candidate, name) is not None]
    return names or ["score"]


def timings_table(result: "Result") -> Table:
    """Milliseconds by stage, with what was done in each."""
    record = result.record
    drawn, finished = f"candidates: {record.n + record.unused}", f"finished pictures: {len(result.images)}"
    done = {"encode": "the prompt", "prefix": drawn, "verify": drawn, "suffix": finished, "decode": finished}
    table = _table()
    table.add_column("stage")
    table.add_column("ms", justify="right")
    table.add_column("spent on")
    for stage, seconds in record.timings.items():
        table.add_row(stage, f"{seconds * 1000:.1f}", done.get(stage, ""))
    return table
