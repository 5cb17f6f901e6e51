"""Progress of long work in several parts: a bar on a terminal, a line now and then in a log file."""

import time
from types import TracebackType
from typing import Self

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

from forejudge.progress import Progress as Stand

_SECONDS_BETWEEN_LINES = 30.0


class StageProgress:
    """Shows where each part stands, on stderr."""

    def __init__(self) -> None:
        console = Console(stderr=True)
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[note]}"),
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

    def show(self, stand: Stand) -> None:
        """Show a part's stand and the time it still takes."""
        left = f"{stand.seconds_left / 60:.1f} min left"
        note = f"{stand.note}, {left}" if stand.note else left
        if self._bar.disable:
            self._line(f"{stand.part}: {stand.step} of {stand.steps}, {note}")
        elif stand.part not in self._tasks:
            self._tasks[stand.part] = self._bar.add_task(stand.part, total=stand.steps, note=note)
        if stand.part in self._tasks:
            self._bar.update(self._tasks[stand.part], completed=stand.step, note=note)  # type: ignore[arg-type]

    def _line(self, text: str) -> None:
        now = time.monotonic()
        if now - self._last_line > _SECONDS_BETWEEN_LINES:
            typer.echo(text, err=True)
            self._last_line = now
