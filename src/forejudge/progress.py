"""Progress of long work, and the shards it is split into for several processes."""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from forejudge.errors import InvalidRequest


@dataclass(frozen=True)
class Progress:
    """State of one part of the work: `step` of `steps` are done. `note` adds for instance a loss or a speed."""

    part: str
    step: int
    steps: int
    seconds_left: float
    note: str = ""


ProgressCallback = Callable[[Progress], None]


def ignore_progress(progress: Progress) -> None:
    """Drop progress, for work without a display."""


class Stopwatch:
    """Estimate of the time left for a part that starts at step `initial`, by its pace so far."""

    def __init__(self, part: str, initial: int, steps: int) -> None:
        self.part, self.steps = part, steps
        self._first, self._started = initial, time.monotonic()

    @property
    def seconds(self) -> float:
        """Seconds since the start."""
        return time.monotonic() - self._started

    def at(self, step: int, note: str = "") -> Progress:
        """Return the progress after `step` steps, with the seconds left at the pace so far."""
        seconds_per_step = self.seconds / max(step - self._first, 1)
        return Progress(self.part, step, self.steps, seconds_per_step * (self.steps - step), note)


@dataclass(frozen=True)
class Shard:
    """One of `count` equal parts of long work, for a process or machine of its own; `number` counts from 1."""

    number: int = 1
    count: int = 1

    @classmethod
    def parse(cls, text: str) -> "Shard":
        """Parse "1/4" and the like. Raises InvalidRequest for any other text."""
        number, slash, count = text.partition("/")
        if slash and number.isdecimal() and count.isdecimal() and 1 <= int(number) <= int(count):
            return cls(int(number), int(count))
        raise InvalidRequest(f"shard {text!r}: expected NUMBER/COUNT, such as 1/4 to 4/4 for four shards")

    def indices(self, total: int) -> Iterator[int]:
        """Return the indices in [0, total) that belong to this shard."""
        return iter(range(self.number - 1, total, self.count))

    def __str__(self) -> str:
        return f"{self.number}/{self.count}"
