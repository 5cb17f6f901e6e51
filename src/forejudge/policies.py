"""Search policies: how many candidates to generate next, and when to stop.

A policy is a pure function of what a search has scored and measured (`SearchState`); it reads no clock and runs no
model. To add one, write a class and a row of `POLICIES`; what it needs from the caller is a field of `SearchOptions`.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal, Self

from forejudge.errors import InvalidRequest
from forejudge.expected_improvement import NextLogOdds, Prior
from forejudge.options import SearchOptions
from forejudge.types import Candidates, Verdict

StopReason = Literal["n", "budget_ms", "until", "price", "max_n"]
_SAFETY_FACTOR = 1.15  # a batch starts only if this many times its expected time is left


@dataclass(frozen=True)
class SearchState:
    """Everything a search has scored and measured so far.

    `verdicts` holds those of the candidates in use, in order; of the `num_generated` candidates, those behind the one
    that stopped the search go unused. `best` maps an index to the candidate to finish, best first. `batch_timings`
    lists the size and seconds of each batch; `elapsed` counts seconds since the prompt came in.
    """

    max_batch_size: int
    elapsed: float = 0.0
    verdicts: tuple[Verdict, ...] = ()
    num_generated: int = 0
    batch_timings: tuple[tuple[int, float], ...] = ()
    best: Mapping[int, Candidates] = field(default_factory=dict)

    def extended(
        self, verdicts: Sequence[Verdict], policy: "SearchPolicy", seconds: float = 0.0, elapsed: float = 0.0
    ) -> "SearchState":
        """Add the verdicts of a batch, up to the candidate that stops the search.

        It took `seconds` and ended `elapsed` seconds after the prompt came in.
        """
        size, all_verdicts = len(verdicts), (*self.verdicts, *verdicts)
        return replace(
            self,
            elapsed=elapsed,
            verdicts=all_verdicts[: policy.num_used(all_verdicts)],
            num_generated=self.num_generated + size,
            batch_timings=(*self.batch_timings, (size, seconds)),
        )


@dataclass(frozen=True)
class LatencyEstimate:
    """Expected seconds: `batch` by batch size to generate and score it, `finish` to finish one candidate.

    `min_seconds` is the least that a search with one candidate takes.
    """

    batch: Mapping[int, float]
    finish: float
    min_seconds: float


MeasureLatency = Callable[[float], LatencyEstimate]
"""Measures the batch sizes that take up to the given number of seconds."""


class SearchPolicy(ABC):
    """Rule that sizes the next batch of a search and decides when to stop."""

    option: StopReason  # the option that a stop is reported as

    @classmethod
    @abstractmethod
    def from_options(cls, options: SearchOptions, measure: MeasureLatency, prior: Prior | None) -> Self | None:
        """Build the policy, or return None if `options` do not ask for it. `prior` is the verifier's."""

    @abstractmethod
    def next_batch(self, state: SearchState) -> int:
        """Return the size of the next batch, at most `state.max_batch_size`; 0 stops the search."""

    def num_used(self, verdicts: Sequence[Verdict]) -> int:
        """Return how many of the scored candidates count: with less than all, a stop ignores the batch size."""
        return len(verdicts)

    def stopped_by(self, state: SearchState) -> StopReason:
        """Return the option that stops the search, in a state for which `next_batch` is 0."""
        return self.option


@dataclass(frozen=True)
class UntilProbability(SearchPolicy):
    """Stop at the first candidate whose calibrated probability reaches `probability`."""

    probability: float
    option = "until"

    @classmethod
    def from_options(cls, options: SearchOptions, measure: MeasureLatency, prior: Prior | None) -> Self | None:
        """See `SearchPolicy.from_options`."""
        return None if options.until is None else cls(options.until)

    def next_batch(self, state: SearchState) -> int:
        """See `SearchPolicy.next_batch`."""
        return state.max_batch_size if self._first_reaching(state.verdicts) is None else 0

    def num_used(self, verdicts: Sequence[Verdict]) -> int:
        """Count the candidates up to the first one that reaches the probability."""
        index = self._first_reaching(verdicts)
        return len(verdicts) if index is None else index + 1

    def _first_reaching(self, verdicts: Sequence[Verdict]) -> int | None:
        reaching = (index for index, verdict in enumerate(verdicts) if (verdict.probability or 0) >= self.probability)
        return next(reaching, None)


@dataclass(frozen=True)
class FixedN(SearchPolicy):
    """Stop after `n` candidates."""

    n: int
    option: StopReason = "n"

    @classmethod
    def from_options(cls, options: SearchOptions, measure: MeasureLatency, prior: Prior | None) -> Self:
        """See `SearchPolicy.from_options`; every search has a cap."""
        return cls(options.cap, "n" if options.fixed_n else "max_n")

    def next_batch(self, state: SearchState) -> int:
        """See `SearchPolicy.next_batch`."""
        return min(state.max_batch_size, self.n - state.num_generated)


@dataclass(frozen=True)
class Deadline(SearchPolicy):
    """Stop while there is time to finish the `top_k` best within `budget_ms`. One candidate is always generated.

    A batch slower than expected slows the expectation for all later ones. Raises InvalidRequest for a budget in which
    not even one candidate fits.
    """

    budget_ms: float
    costs: LatencyEstimate
    top_k: int = 1
    option = "budget_ms"

    @classmethod
    def from_options(cls, options: SearchOptions, measure: MeasureLatency, prior: Prior | None) -> Self | None:
        """See `SearchPolicy.from_options`."""
        if options.budget_ms is None:
            return None
        return cls(options.budget_ms, measure(options.budget_ms / 1000), options.top_k)

    def __post_init__(self) -> None:
        min_ms = self.costs.min_seconds * 1000
        if self.budget_ms < min_ms:
            raise InvalidRequest(
                f"budget_ms = {self.budget_ms:g} is too small: on this device one candidate, scored and finished, "
                f"takes at least {min_ms:.0f} ms"
            )

    def next_batch(self, state: SearchState) -> int:
        """See `SearchPolicy.next_batch`."""
        remaining = self.budget_ms / 1000 - state.elapsed
        sizes = [size for size in self.costs.batch if size <= state.max_batch_size]
        feasible_sizes = [size for size in sizes if self._seconds(size, state) <= remaining]
        return max(feasible_sizes, default=1 if state.num_generated == 0 else 0)

    def _seconds(self, size: int, state: SearchState) -> float:
        """Estimate the seconds to score one more batch and finish the best, on the safe side."""
        num_finished = min(self.top_k, state.num_generated + size)
        slowdowns = [took / self.costs.batch[size] for size, took in state.batch_timings if size in self.costs.batch]
        expected = self.costs.batch[size] + self.costs.finish * num_finished
        return expected * max([1.0, *slowdowns]) * _SAFETY_FACTOR


@dataclass(frozen=True)
class ExpectedImprovement(SearchPolicy):
    """Stop when the next batch is expected to improve the best probability by at most `price` times its cost.

    The cost of a single candidate is 1. The next batch has the size with the most expected improvement per cost. Where
    a deadline has had them measured, costs are those of `batch_seconds`; else batches of two cost 2, and what the
    policy decides follows from the verdicts alone.
    """

    price: float
    prior: Prior
    batch_seconds: Mapping[int, float] = field(default_factory=dict)
    option = "price"

    @classmethod
    def from_options(cls, options: SearchOptions, measure: MeasureLatency, prior: Prior | None) -> Self | None:
        """See `SearchPolicy.from_options`."""
        if options.price is None:
            return None
        assert prior is not None, "a price needs the verifier's prior"
        measured = {} if options.budget_ms is None else measure(options.budget_ms / 1000).batch
        return cls(options.price, prior, measured)

    def next_batch(self, state: SearchState) -> int:
        """See `SearchPolicy.next_batch`."""
        probabilities = [verdict.probability for verdict in state.verdicts if verdict.probability is not None]
        predicted, best = NextLogOdds.after(probabilities, self.prior), max(probabilities, default=0.0)
        worth = {
            size: predicted.improvement(best, size) / cost for size, cost in self._costs(state.max_batch_size).items()
        }
        size = max(worth, key=worth.__getitem__, default=0)
        return size if size and (worth[size] > self.price or state.num_generated == 0) else 0

    def _costs(self, max_batch_size: int) -> dict[int, float]:
        """Return the costs of the batches to choose from, in units of a single candidate's."""
        if not self.batch_seconds:
            return {size: float(size) for size in [min(2, max_batch_size)] if size}
        sizes = [size for size in self.batch_seconds if size <= max_batch_size]
        return {size: self.batch_seconds[size] / self.batch_seconds[1] for size in sizes}


POLICIES: dict[str, type[SearchPolicy]] = {
    "until": UntilProbability,
    "n": FixedN,
    "price": ExpectedImprovement,
    "budget_ms": Deadline,
}
"""Policies by the option that asks for one. If several stop a search at once, the first names the reason."""


@dataclass(frozen=True)
class AllPolicies(SearchPolicy):
    """Policies at work together: each may shrink the batch that the ones before it leave."""

    policies: tuple[SearchPolicy, ...]

    @classmethod
    def from_options(cls, options: SearchOptions, measure: MeasureLatency, prior: Prior | None = None) -> Self:
        """Build all policies that `options` ask for. Raises InvalidRequest if one cannot be kept."""
        policies = (policy_class.from_options(options, measure, prior) for policy_class in POLICIES.values())
        return cls(tuple(policy for policy in policies if policy is not None))

    def next_batch(self, state: SearchState) -> int:
        """See `SearchPolicy.next_batch`."""
        for policy in self.policies:
            state = replace(state, max_batch_size=policy.next_batch(state))
        return state.max_batch_size

    def num_used(self, verdicts: Sequence[Verdict]) -> int:
        """See `SearchPolicy.num_used`."""
        return min(policy.num_used(verdicts) for policy in self.policies)

    def stopped_by(self, state: SearchState) -> StopReason:
        """See `SearchPolicy.stopped_by`."""
        return next(policy.stopped_by(state) for policy in self.policies if not policy.next_batch(state))


def expected_n(policy: SearchPolicy, max_batch_size: int, costs: LatencyEstimate, elapsed: float) -> int:
    """Return how many candidates a search scores if every batch takes its expected time, from `elapsed` seconds on."""
    state = SearchState(max_batch_size, elapsed)
    while size := policy.next_batch(state):
        state = replace(state, num_generated=state.num_generated + size, elapsed=state.elapsed + costs.batch[size])
    return state.num_generated
