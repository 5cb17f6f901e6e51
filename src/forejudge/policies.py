"""How many candidates come next, and why a search ends: by number, by memory and by time. No clock, no models."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from forejudge.errors import InvalidRequest

StopReason = Literal["n", "budget_ms", "until", "max_n"]
DEFAULT_N = 8
DEFAULT_MAX_N = 64
_SAFETY_FACTOR = 1.15  # a chunk is begun only if this many times its expected time is left


@dataclass(frozen=True)
class SearchLimits:
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
    def reason_at_cap(self) -> StopReason:
        """Why a search ends that reaches the cap."""
        return self._cap_and_reason[1]

    @property
    def _cap_and_reason(self) -> tuple[int, StopReason]:
        if self.n is not None:
            return self.n, "n"
        if self.budget_ms is None and self.until is None and self.max_n >= DEFAULT_N:
            return DEFAULT_N, "n"
        return self.max_n, "max_n"


@dataclass(frozen=True)
class LatencyEstimate:
    """Seconds: `batch` maps a batch size to drawing and judging so many, `finish` completes one winner.

    Both are what to reckon with; `min_seconds` is what a search with one candidate takes at best.
    """

    batch: Mapping[int, float]
    finish: float
    min_seconds: float


class SearchPolicy:
    """The size of the next chunk, so that limits are kept.

    Where there is a budget, `costs` are needed: room is kept for finishing the `top_k` best. Raises InvalidRequest
    for a budget in which not even one candidate fits.
    """

    def __init__(
        self, limits: SearchLimits, max_batch_size: int, top_k: int = 1, costs: LatencyEstimate | None = None
    ) -> None:
        assert (limits.budget_ms is None) == (costs is None), "a time budget and costs go together"
        self.limits = limits
        self._max_batch_size, self._top_k, self._costs = max_batch_size, top_k, costs
        self._slowdown = 1.0  # than measured, by the slowest chunk so far
        self.batch_timings: list[tuple[int, float]] = []  # sizes of chunks, and the seconds they took
        if costs is not None:
            _check_budget(limits, costs)

    def next_batch(self, num_generated: int, elapsed: float) -> int:
        """How many come after `num_generated` candidates and `elapsed` seconds; 0 ends the search. One is always drawn."""
        max_size = min(self._max_batch_size, self.limits.cap - num_generated)
        if self._costs is None or self.limits.budget_ms is None:
            return max_size
        remaining = self.limits.budget_ms / 1000 - elapsed
        feasible_sizes = [
            size for size in self._costs.batch if size <= max_size and self._seconds(size, num_generated) <= remaining
        ]
        return max(feasible_sizes, default=1 if num_generated == 0 else 0)

    def on_out_of_memory(self, size: int) -> None:
        """Memory ran out for a chunk of `size`: later ones are at most half as large."""
        self._max_batch_size = size // 2

    def record_batch(self, size: int, seconds: float) -> None:
        """A chunk took so long: slower than expected makes all that follows be expected slower."""
        self.batch_timings.append((size, seconds))
        if self._costs is not None and size in self._costs.batch:
            self._slowdown = max(self._slowdown, seconds / self._costs.batch[size])

    def stopped_by(self, num_generated: int) -> StopReason:
        """Which limit ended a search that no verdict ended."""
        return self.limits.reason_at_cap if num_generated >= self.limits.cap else "budget_ms"

    def _seconds(self, size: int, num_generated: int) -> float:
        """To draw and judge one more chunk and finish the best, on the safe side."""
        assert self._costs is not None
        num_winners = min(self._top_k, num_generated + size)
        return (self._costs.batch[size] + self._costs.finish * num_winners) * self._slowdown * _SAFETY_FACTOR


def expected_n(limits: SearchLimits, max_batch_size: int, costs: LatencyEstimate, elapsed: float) -> int:
    """How many a search under a budget judges if every chunk costs what it should, from `elapsed` seconds on."""
    policy, num_generated = SearchPolicy(limits, max_batch_size, costs=costs), 0
    while size := policy.next_batch(num_generated, elapsed):
        num_generated, elapsed = num_generated + size, elapsed + costs.batch[size]
    return num_generated


def _check_budget(limits: SearchLimits, costs: LatencyEstimate) -> None:
    assert limits.budget_ms is not None
    min_ms = costs.min_seconds * 1000
    if limits.budget_ms < min_ms:
        raise InvalidRequest(
            f"budget_ms = {limits.budget_ms:g} is too small: on this device one candidate, judged and finished, "
            f"takes {min_ms:.0f} ms at best"
        )
