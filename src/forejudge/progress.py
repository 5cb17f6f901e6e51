"""Where long work stands, told to whoever shows it."""

import time
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Progress:
    """`step` of `steps` of a part are done; `note` says more, such as a loss or a speed."""

    part: str
    step: int
    steps: int
    seconds_left: float
    note: str = ""


Report = Callable[[Progress], None]


def report_nothing(progress: Progress) -> None:
    """For work that nobody watches."""


class Stopwatch:
    """The pace of a part that was `done` steps on when it was taken up."""

    def __init__(self, part: str, done: int, steps: int) -> None:
        self.part, self.steps = part, steps
        self._first, self._started = done, time.monotonic()

    @property
    def seconds(self) -> float:
        """Since it was taken up."""
        return time.monotonic() - self._started

    def at(self, step: int, note: str = "") -> Progress:
        """The stand after so many steps, the rest at the pace so far."""
        pace = self.seconds / max(step - self._first, 1)
        return Progress(self.part, step, self.steps, pace * (self.steps - step), note)
