"""The loop: draw, judge, keep the best, finish the winner from where it stands.

It names no generator and no verifier. A budget only decides how many seeds are drawn next.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from PIL.Image import Image

from forejudge.budget import (
    Costs,
    EndedBy,
    Limits,
    check_budget,
    next_chunk,
    next_chunk_in_time,
)
from forejudge.clock import StageClock
from forejudge.draw import draw_and_judge, finish, is_out_of_memory
from forejudge.generators.base import Generator, Sampling
from forejudge.selection import first_reaching, order_by_score
from forejudge.types import Candidates, Verdict
from forejudge.verifiers.base import Verifier

LARGEST_CHUNK = 32
OnProgress = Callable[[int, int], None]  # candidates judged, the most there will be


@dataclass(frozen=True)
class Found:
    """What a search found. `order` ranks the used candidates; `images` are those of the best, best first."""

    verdicts: tuple[Verdict, ...]
    order: tuple[int, ...]
    images: dict[int, Image]
    ended_by: EndedBy
    drawn: int
    timings: dict[str, float]


class Search:
    """One Best-of-N search over one prompt."""

    def __init__(self, generator: Generator, verifier: Verifier, clock: StageClock, top_k: int) -> None:
        self.generator, self.verifier = generator, verifier
        self.clock, self.top_k = clock, top_k
        self.verdicts: list[Verdict] = []
        self.best: dict[int, Candidates] = {}
        self.drawn = 0

    def run(
        self,
        prompt: str,
        seeds: tuple[int, ...],
        sampling: Sampling,
        limits: Limits,
        pace: "Pace",
        on_progress: OnProgress | None = None,
    ) -> Found:
        """Draw chunk after chunk until a limit is reached, then finish the `top_k` best."""
        with self.clock.stage("encode"):
            conditioning = self.generator.encode(prompt, sampling)
        ended_by = None
        while ended_by is None and (size := pace.next(self.drawn, self.clock.elapsed)):
            chunk = seeds[self.drawn : self.drawn + size]
            candidates, verdicts = self._draw(prompt, conditioning, chunk, pace)
            ended_by = self._take(candidates, verdicts, limits)
            if on_progress:
                on_progress(len(self.verdicts), limits.cap)
        return self._finish(ended_by or pace.ended_by(self.drawn), sampling.steps)

    def _draw(
        self, prompt: str, conditioning: Any, seeds: tuple[int, ...], pace: "Pace"
    ) -> tuple[Candidates, list[Verdict]]:
        """Judge a chunk; where memory runs out, half of it, and so from then on."""
        before = self.clock.elapsed
        try:
            judged = draw_and_judge(self.generator, self.verifier, prompt, conditioning, seeds, self.clock)
        except RuntimeError as error:
            if len(seeds) == 1 or not is_out_of_memory(error):
                raise
            pace.halve(len(seeds))
            return self._draw(prompt, conditioning, seeds[: len(seeds) // 2], pace)
        pace.observe(len(seeds), self.clock.elapsed - before)
        return judged

    def _take(self, candidates: Candidates, verdicts: list[Verdict], limits: Limits) -> EndedBy | None:
        """Add a chunk, up to the first candidate that ends the search."""
        first = len(self.verdicts)
        self.drawn += len(verdicts)
        sure = None if limits.until is None else first_reaching(verdicts, limits.until)
        used = len(verdicts) if sure is None else sure + 1
        self.verdicts += verdicts[:used]
        leading = order_by_score(self.verdicts)[: self.top_k]
        self.best = {index: candidates[[index - first]] if index >= first else self.best[index] for index in leading}
        return None if sure is None else "until"

    def _finish(self, ended_by: EndedBy, steps: int) -> Found:
        images = {index: finish(self.generator, candidate, self.clock, steps) for index, candidate in self.best.items()}
        return Found(
            tuple(self.verdicts),
            order_by_score(self.verdicts),
            images,
            ended_by,
            self.drawn,
            self.clock.seconds | {"total": self.clock.elapsed},
        )


class Pace:
    """How many candidates come next: by number and memory, and by time where there is a budget."""

    def __init__(self, limits: Limits, largest_chunk: int, costs: Costs | None) -> None:
        self.limits, self.largest, self.costs = limits, largest_chunk, costs
        if costs:
            check_budget(limits, costs)

    def next(self, drawn: int, elapsed: float) -> int:
        """The size of the next chunk; 0 ends the search. One candidate is always drawn."""
        most = next_chunk(self.limits, drawn, self.largest)
        if self.costs is None or self.limits.budget_ms is None or most == 0:
            return most
        left = self.limits.budget_ms / 1000 - elapsed
        return next_chunk_in_time(self.costs, left, most) or (1 if drawn == 0 else 0)

    def halve(self, size: int) -> None:
        """Memory ran out for a chunk of `size`."""
        self.largest = size // 2

    def observe(self, size: int, seconds: float) -> None:
        """A chunk took so long; slower than expected makes all later ones expected slower."""
        if self.costs:
            self.costs = self.costs.observed(size, seconds)

    def ended_by(self, drawn: int) -> EndedBy:
        """Which limit ended a search that no verdict ended."""
        return self.limits.reason_at_cap if drawn >= self.limits.cap else "budget_ms"
