"""Rules to simulate: the search options of a policy, how many candidates a batch may have, and what is done afterwards.

A rule runs the real policies, built from its options as a search builds them.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from forejudge.evaluation.report import FIXED
from forejudge.options import SearchOptions

UNTIL, DEADLINE, EXPECTED_IMPROVEMENT = "until", "deadline", "expected improvement"
CASCADE = "cascade"
PAIRS = 2
"""Most candidates at once of `until` and `expected improvement`."""


@dataclass(frozen=True)
class Rule:
    """A policy by the options of its search; a winner below their `refine_below` takes a second step.

    `batch_size` is the most candidates at once; a policy without sizes of its own fills it.
    """

    policy: str
    options: SearchOptions
    batch_size: int = 32


@dataclass(frozen=True)
class Cascade:
    """Score `n` candidates early, keep the better half, score these again at the later cut, and finish the best."""

    early: str
    late: str
    n: int


@dataclass(frozen=True)
class Grid:
    """Values of each policy's parameter. `max_n` is the number of recorded candidates."""

    max_n: int
    ns: Sequence[int] = (1, 2, 4, 8, 16, 32, 64)
    untils: Sequence[float] = (0.5, 0.7, 0.8, 0.9, 0.95, 0.98)
    prices: Sequence[float] = (0.001, 0.002, 0.003, 0.006, 0.012, 0.024)
    refine_below: Sequence[float] = (0.0, 0.9)
    budgets_ms: Sequence[float] = ()

    def rules(self) -> Iterator[Rule]:
        """Yield all rules. `until` and `expected improvement` take two candidates at once."""
        for refine_below in self.refine_below:
            for n in (n for n in self.ns if n <= self.max_n):
                yield Rule(FIXED, SearchOptions(n=n, refine_below=refine_below))
            for until in self.untils:
                yield Rule(UNTIL, SearchOptions(until=until, max_n=self.max_n, refine_below=refine_below), PAIRS)
            for price in self.prices:
                options = SearchOptions(price=price, max_n=self.max_n, refine_below=refine_below)
                yield Rule(EXPECTED_IMPROVEMENT, options, PAIRS)
        for budget_ms in self.budgets_ms:
            yield Rule(DEADLINE, SearchOptions(budget_ms=budget_ms, max_n=self.max_n))
