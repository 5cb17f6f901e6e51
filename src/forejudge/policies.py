"""How many candidates come next, and why a search ends: by number, by memory and by time. No clock, no models."""

from collections.abc import Mapping
from dataclasses import dataclass
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
    any of the three `n` is 8, or `max_n` if that is less. Raises InvalidRequest for values that no search can keep.
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
        return self._cap_and_reason[0]

    @property
    def reason_at_cap(self) -> EndedBy:
        """Why a search ends that reaches the cap."""
        return self._cap_and_reason[1]

    @property
    def _cap_and_reason(self) -> tuple[int, EndedBy]:
        if self.n is not None:
            return self.n, "n"
        if self.budget_ms is None and self.until is None and self.max_n >= DEFAULT_N:
            return DEFAULT_N, "n"
        return self.max_n, "max_n"


@dataclass(frozen=True)
class Costs:
    """Seconds: `chunk` maps a batch size to drawing and judging so many, `finish` completes one winner.

    Both are what to reckon with; `least` is what a search with one candidate takes at best.
    """

    chunk: Mapping[int, float]
    finish: float
    least: float


class Pace:
    """The size of the next chunk, so that limits are kept.

    Where there is a budget, `costs` are needed: room is kept for finishing the `top_k` best. Raises InvalidRequest
    for a budget in which not even one candidate fits.
    """

    def __init__(self, limits: Limits, largest_chunk: int, top_k: int = 1, costs: Costs | None = None) -> None:
        assert (limits.budget_ms is None) == (costs is None), "a time budget and costs go together"
        self.limits = limits
        self._largest, self._top_k, self._costs = largest_chunk, top_k, costs
        self._slower = 1.0  # than measured, by the slowest chunk so far
        self.observed: list[tuple[int, float]] = []  # sizes of chunks, and the seconds they took
        if costs is not None:
            _check_budget(limits, costs)

    def next(self, drawn: int, elapsed: float) -> int:
        """How many come after `drawn` candidates and `elapsed` seconds; 0 ends the search. One is always drawn."""
        most = min(self._largest, self.limits.cap - drawn)
        if self._costs is None or self.limits.budget_ms is None:
            return most
        left = self.limits.budget_ms / 1000 - elapsed
        fitting = [size for size in self._costs.chunk if size <= most and self._seconds(size, drawn) <= left]
        return max(fitting, default=1 if drawn == 0 else 0)

    def out_of_memory(self, size: int) -> None:
        """Memory ran out for a chunk of `size`: later ones are at most half as large."""
        self._largest = size // 2

    def observe(self, size: int, seconds: float) -> None:
        """A chunk took so long: slower than expected makes all that follows be expected slower."""
        self.observed.append((size, seconds))
        if self._costs is not None and size in self._costs.chunk:
            self._slower = max(self._slower, seconds / self._costs.chunk[size])

    def ended_by(self, drawn: int) -> EndedBy:
        """Which limit ended a search that no verdict ended."""
        return self.limits.reason_at_cap if drawn >= self.limits.cap else "budget_ms"

    def _seconds(self, size: int, drawn: int) -> float:
        """To draw and judge one more chunk and finish the best, on the safe side."""
        assert self._costs is not None
        winners = min(self._top_k, drawn + size)
        return (self._costs.chunk[size] + self._costs.finish * winners) * self._slower * _SAFETY


def expected_n(limits: Limits, largest_chunk: int, costs: Costs, elapsed: float) -> int:
    """How many a search under a budget judges if every chunk costs what it should, from `elapsed` seconds on."""
    pace, drawn = Pace(limits, largest_chunk, costs=costs), 0
    while size := pace.next(drawn, elapsed):
        drawn, elapsed = drawn + size, elapsed + costs.chunk[size]
    return drawn


def _check_budget(limits: Limits, costs: Costs) -> None:
    assert limits.budget_ms is not None
    least_ms = costs.least * 1000
    if limits.budget_ms < least_ms:
        raise InvalidRequest(
            f"budget_ms = {limits.budget_ms:g} is too small: on this device one candidate, judged and finished, "
            f"takes {least_ms:.0f} ms at best"
        )
