"""The loop: draw, judge, keep the best, finish the winner from where it stands.

It names no generator and no verifier. A budget only decides how many seeds are drawn next.
"""

from collections.abc import Callable
from dataclasses import dataclass

from PIL.Image import Image

from forejudge.budget import EndedBy, Pace
from forejudge.device import free_memory, is_out_of_memory
from forejudge.draw import Drawing
from forejudge.selection import first_reaching, order_by_score
from forejudge.types import Candidates, Verdict

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
    """One Best-of-N search over one prompt; only the `top_k` best candidates are kept."""

    def __init__(self, drawing: Drawing, pace: Pace, top_k: int) -> None:
        self.drawing, self.pace, self.top_k = drawing, pace, top_k
        self.verdicts: list[Verdict] = []
        self.best: dict[int, Candidates] = {}
        self.drawn = 0

    def run(self, seeds: tuple[int, ...], on_progress: OnProgress | None = None) -> Found:
        """Draw chunk after chunk until a limit is reached, then finish the best."""
        ended_by: EndedBy | None = None
        while ended_by is None and (size := self.pace.next(self.drawn, self.drawing.clock.elapsed)):
            ended_by = self._take(*self._judge(seeds[self.drawn : self.drawn + size]))
            if on_progress:
                on_progress(len(self.verdicts), self.pace.limits.cap)
        return self._finish(ended_by or self.pace.ended_by(self.drawn))

    def _judge(self, seeds: tuple[int, ...]) -> tuple[Candidates, list[Verdict]]:
        """Judge a chunk; where memory runs out, half of it, and so from then on."""
        before = self.drawing.clock.elapsed
        try:
            judged = self.drawing.judge(seeds)
        except RuntimeError as error:
            if len(seeds) == 1 or not is_out_of_memory(error):
                raise
        else:
            self.pace.observe(len(seeds), self.drawing.clock.elapsed - before)
            return judged
        # Out here the error is gone, and with it the tensors that its traceback kept alive.
        free_memory()
        self.pace.out_of_memory(len(seeds))
        return self._judge(seeds[: len(seeds) // 2])

    def _take(self, candidates: Candidates, verdicts: list[Verdict]) -> EndedBy | None:
        """Add a chunk, up to the first candidate that ends the search."""
        first, until = len(self.verdicts), self.pace.limits.until
        self.drawn += len(verdicts)
        sure = None if until is None else first_reaching(verdicts, until)
        self.verdicts += verdicts if sure is None else verdicts[: sure + 1]
        leading = order_by_score(self.verdicts)[: self.top_k]
        self.best = {index: candidates[[index - first]] if index >= first else self.best[index] for index in leading}
        return None if sure is None else "until"

    def _finish(self, ended_by: EndedBy) -> Found:
        images = {index: self.drawing.finish(candidate) for index, candidate in self.best.items()}
        clock = self.drawing.clock
        timings = clock.seconds | {"total": clock.elapsed}
        return Found(tuple(self.verdicts), order_by_score(self.verdicts), images, ended_by, self.drawn, timings)
