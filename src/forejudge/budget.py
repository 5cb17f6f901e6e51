"""How many candidates come next, and why a search ends. Pure functions of limits, costs and the clock."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal

from forejudge.errors import InvalidRequest

EndedBy = Literal["n", "budget_ms", "until", "max_n"]
DEFAULT_N = 8
DEFAULT_MAX_N = 64
_SAFETY = 1.15  # a chunk is begun only if this many times its expected time is left


@dataclass(frozen=True)
class Limits:
    """When a search ends: after `n` candidates, before `budget_ms` have passed, or once one is sure enough.

    `until` is a calibrated probability in (0, 1]. Without `n` the other two are capped by `max_n` alone; without
    any of the three `n` is 8. Raises InvalidRequest for values that no search can keep.
    """

    n: int | None = None
    budget_ms: float | None = None
    until: float | None = None
    max_n: int = DEFAULT_MAX_N

    def __post_init__(self) -> None:
        if self.n is not None and self.n < 1:
            raise InvalidRequest(f"n = {self.n} draws nothing: it must be at least 1")
        if self.max_n < 1:
            raise InvalidRequest(f"max_n = {self.max_n} draws nothing: it must be at least 1")
        if self.budget_ms is not None and not self.budget_ms > 0:
            raise InvalidRequest(f"budget_ms = {self.budget_ms:g} must be more than 0")
        if self.until is not None and not 0 < self.until <= 1:
            raise InvalidRequest(f"until = {self.until:g} must lie in (0, 1]: it is a probability")

    @property
    def cap(self) -> int:
        """The number of candidates that is never passed."""
        if self.n is not None:
            return self.n
        unlimited = self.budget_ms is None and self.until is None
        return DEFAULT_N if unlimited else self.max_n

    @property
    def reason_at_cap(self) -> EndedBy:
        """Why a search ends that reaches the cap."""
        return "max_n" if self.n is None and self.cap == self.max_n else "n"


@dataclass(frozen=True)
class Costs:
    """Measured seconds: `chunk` maps a batch size to drawing and judging so many, `finish` completes the winners."""

    encode: float
    chunk: Mapping[int, float]
    finish: float

    def least(self) -> float:
        """The seconds that a search with one candidate takes."""
        return self.encode + self.chunk[1] + self.finish

    def observed(self, size: int, seconds: float) -> "Costs":
        """Costs that know of a chunk slower than expected: all chunks are taken to be so much slower."""
        slower = max(seconds / self.chunk[size], 1.0) if size in self.chunk else 1.0
        return replace(self, chunk={b: cost * slower for b, cost in self.chunk.items()})


def next_chunk(limits: Limits, drawn: int, batch_size: int) -> int:
    """How many candidates a search without a time budget draws next; 0 when it has drawn all it may."""
    return max(min(batch_size, limits.cap - drawn), 0)


def next_chunk_in_time(costs: Costs, seconds_left: float, most: int) -> int:
    """The most candidates, up to `most`, that can be drawn and judged while the winner can still be finished."""
    room = seconds_left - costs.finish * _SAFETY
    sizes = [size for size, cost in costs.chunk.items() if size <= most and cost * _SAFETY <= room]
    return max(sizes, default=0)


def check_budget(limits: Limits, costs: Costs) -> None:
    """Raises InvalidRequest where not even one candidate fits."""
    assert limits.budget_ms is not None
    least_ms = costs.least() * 1000
    if limits.budget_ms < least_ms:
        raise InvalidRequest(
            f"budget_ms = {limits.budget_ms:g} is too small: on this device one candidate, judged and finished, "
            f"takes {least_ms:.0f} ms"
        )
