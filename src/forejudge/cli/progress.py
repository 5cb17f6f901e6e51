"""Progress on stderr: bars on a terminal that go away at the end, lines in a log file."""

import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from types import TracebackType
from typing import TYPE_CHECKING, Self

from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, TextColumn, TimeRemainingColumn

from forejudge.cli.common import echo, new_console
from forejudge.progress import Progress as ProgressUpdate

if TYPE_CHECKING:
    from forejudge.search import OnProgress

_SECONDS_BETWEEN_LINES = 30.0
_SPEED_WINDOW = 600.0  # seconds over which the time left is estimated


class StageProgress:
    """Progress of work in several parts: a bar for each on a terminal, every 30 seconds a line in a log file."""

    def __init__(self) -> None:
        console = new_console(stderr=True)
        self._bar = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[note]}", markup=False),
            console=console,
            disable=not console.is_terminal,
        )
        self._tasks: dict[str, int] = {}
        self._last_line = 0.0

    def __enter__(self) -> Self:
        self._bar.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._bar.__exit__(kind, error, traceback)

    def show(self, progress: ProgressUpdate) -> None:
        """Show the progress of one part and the time it has left."""
        remaining = f"{progress.seconds_left / 60:.1f} min left"
        note = f"{progress.note}, {remaining}" if progress.note else remaining
        if self._bar.disable:
            self._line(f"{progress.part}: {progress.step} of {progress.steps}, {note}")
        elif progress.part not in self._tasks:
            self._tasks[progress.part] = self._bar.add_task(progress.part, total=progress.steps, note=note)
        if progress.part in self._tasks:
            self._bar.update(self._tasks[progress.part], completed=progress.step, note=note)  # type: ignore[arg-type]

    def _line(self, text: str) -> None:
        now = time.monotonic()
        if now - self._last_line > _SECONDS_BETWEEN_LINES:
            echo(text, err=True)
            self._last_line = now


def spinner(text: str) -> AbstractContextManager[object]:
    """Show a spinner for work of unknown length."""
    console = new_console(stderr=True)
    return console.status(text) if console.is_terminal else nullcontext()


@contextmanager
def scoring_progress() -> Iterator["OnProgress"]:
    """Show a bar of candidates scored."""
    with _bar(TextColumn("scoring"), BarColumn(), MofNCompleteColumn()) as bar:
        task = bar.add_task("", total=None)
        yield lambda num_scored, max_candidates: bar.update(task, completed=num_scored, total=max_candidates)


@contextmanager
def progress_counter(noun: str, total: int) -> Iterator[Callable[[], None]]:
    """Count to `total` with the time left, in a bar or every 30 seconds in a line."""
    lines = _LineProgress(noun, total)
    with _bar(BarColumn(), MofNCompleteColumn(), TextColumn(noun), TimeRemainingColumn()) as bar:
        task = bar.add_task("", total=total)

        def advance() -> None:
            bar.advance(task)
            if bar.disable:
                lines.advance()

        yield advance


def _bar(*columns: ProgressColumn) -> Progress:
    console = new_console(stderr=True)
    return Progress(
        *columns,
        console=console,
        transient=True,
        disable=not console.is_terminal,
        speed_estimate_period=_SPEED_WINDOW,
    )


class _LineProgress:
    """Counter for a log file."""

    def __init__(self, noun: str, total: int) -> None:
        self.noun, self.total, self.done = noun, total, 0
        self.started = self.last = time.monotonic()

    def advance(self) -> None:
        """Count one, and print a line if the last one is old."""
        self.done += 1
        now = time.monotonic()
        if now - self.last < _SECONDS_BETWEEN_LINES:
            return
        remaining = (now - self.started) / self.done * (self.total - self.done)
        echo(f"{self.done} of {self.total} {self.noun}, {remaining / 60:.1f} min left", err=True)
        self.last = now
