"""Progress on stderr, gone when the work is done."""

import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import TYPE_CHECKING

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, TextColumn, TimeRemainingColumn

if TYPE_CHECKING:
    from forejudge.search import OnProgress

_SECONDS_BETWEEN_LINES = 30.0
_SPEED_WINDOW = 600.0  # seconds over which the time left is estimated


def waiting(text: str) -> AbstractContextManager[object]:
    """A sign that something is being done whose length is not known."""
    console = Console(stderr=True)
    return console.status(text) if console.is_terminal else nullcontext()


@contextmanager
def judging() -> Iterator["OnProgress"]:
    """A bar of candidates judged."""
    with _bar(TextColumn("judging"), BarColumn(), MofNCompleteColumn()) as bar:
        task = bar.add_task("", total=None)
        yield lambda judged, most: bar.update(task, completed=judged, total=most)


@contextmanager
def counting(noun: str, total: int) -> Iterator[Callable[[], None]]:
    """Counts to `total` with the time left; where stderr is no terminal, in a line now and then."""
    lines = _Lines(noun, total)
    with _bar(BarColumn(), MofNCompleteColumn(), TextColumn(noun), TimeRemainingColumn()) as bar:
        task = bar.add_task("", total=total)

        def advance() -> None:
            bar.advance(task)
            if bar.disable:
                lines.advance()

        yield advance


def _bar(*columns: ProgressColumn) -> Progress:
    console = Console(stderr=True)
    return Progress(
        *columns,
        console=console,
        transient=True,
        disable=not console.is_terminal,
        speed_estimate_period=_SPEED_WINDOW,
    )


class _Lines:
    """Progress for a log file."""

    def __init__(self, noun: str, total: int) -> None:
        self.noun, self.total, self.done = noun, total, 0
        self.started = self.last = time.monotonic()

    def advance(self) -> None:
        """Count one, and say so where the last line is old."""
        self.done += 1
        now = time.monotonic()
        if now - self.last < _SECONDS_BETWEEN_LINES:
            return
        left = (now - self.started) / self.done * (self.total - self.done)
        typer.echo(f"{self.done} of {self.total} {self.noun}, {left / 60:.1f} min left", err=True)
        self.last = now
