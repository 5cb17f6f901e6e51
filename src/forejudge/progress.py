"""Where long work stands, told to whoever shows it."""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from forejudge.errors import InvalidRequest

# FOLDED: One of several equal parts of a long work, each for a process or a machine of its own.


@dataclass(frozen=True)
class Shard:
    """Part `number` of `count`, counted from 1."""

    number: int = 1
    count: int = 1

    @classmethod
    def parse(cls, text: str) -> "Shard":
        """The shard of a spelling such as "1/4". Raises InvalidRequest for any other."""
        number, slash, count = text.partition("/")
        if slash and number.isdecimal() and count.isdecimal() and 1 <= int(number) <= int(count):
            return cls(int(number), int(count))
        raise InvalidRequest(f"shard {text!r}: expected NUMBER/COUNT, from 1/4 to 4/4 for four of them")

    def indices(self, total: int) -> Iterator[int]:
        """Which of `total` things, counted from 0, are this shard's."""
        return iter(range(self.number - 1, total, self.count))

    def __str__(self) -> str:
        return f"{self.number}/{self.count}"


@dataclass(frozen=True)
class Progress:
    """`step` of `steps` of a part are done; `note` says more, such as a loss or a speed."""

    part: str
    step: int
    steps: int
    seconds_left: float
    note: str = ""


ProgressCallback = Callable[[Progress], None]


def ignore_progress(progress: Progress) -> None:
    """For work that nobody watches."""


class Stopwatch:
    """The pace of a part that was `initial` steps on when it was taken up."""

    def __init__(self, part: str, initial: int, steps: int) -> None:
        self.part, self.steps = part, steps
        self._first, self._started = initial, time.monotonic()

    @property
    def seconds(self) -> float:
        """Since it was taken up."""
        return time.monotonic() - self._started

    def at(self, step: int, note: str = "") -> Progress:
        """The stand after so many steps, the rest at the pace so far."""
        seconds_per_step = self.seconds / max(step - self._first, 1)
        return Progress(self.part, step, self.steps, seconds_per_step * (self.steps - step), note)
