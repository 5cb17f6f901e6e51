"""What drawing, judging and finishing cost here: measured before a search begins, then learnt from searches."""

import math
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from forejudge.device import is_out_of_memory
from forejudge.generators.base import Generator, Sampling
from forejudge.noise import candidate_seed
from forejudge.policies import Costs
from forejudge.search import Drawing
from forejudge.verifiers.base import Verifier

_ROUNDS = 3  # the first warms up
_REMEMBERED = 8  # searches
_FINISH = 0  # as the size of a chunk


@dataclass
class _Seen:
    """The least seconds that chunks of each size took, and finishing; how many times slower the last searches were.

    All sizes share their slowness, so that a quiet search of small chunks tells that large ones fit again.
    """

    least: dict[int, float] = field(default_factory=dict)
    slowness: deque[float] = field(default_factory=lambda: deque(maxlen=_REMEMBERED))

    @property
    def costs(self) -> Costs:
        slowest = max(self.slowness)
        chunk = {size: seconds * slowest for size, seconds in self.least.items() if size != _FINISH}
        return Costs(chunk, self.least[_FINISH] * slowest, self.least[1] + self.least[_FINISH])

    def add(self, times: Sequence[tuple[int, float]]) -> None:
        """What one search took, of sizes that are known or not."""
        for size, seconds in times:
            self.least[size] = min(seconds, self.least.get(size, math.inf))
        self.slowness.append(max(seconds / self.least[size] for size, seconds in times))


class CostModel:
    """Costs by settings, kept as long as the models are loaded."""

    def __init__(self, generator: Generator, verifier: Verifier) -> None:
        self._generator, self._verifier = generator, verifier
        self._seen: dict[Sampling, _Seen] = {}

    def measure(self, prompt: str, sampling: Sampling, largest: int, seconds: float) -> Costs:
        """Costs of chunks of 1, 2, 4, ... candidates, up to `largest`, and of finishing one.

        Larger chunks than the first one that takes more than `seconds`, or more memory than there is, are left out.
        What is known is not measured again, unless `seconds` seem too few for one candidate.
        """
        if sampling not in self._seen or seconds < self._seen[sampling].costs.least:
            self._measure(prompt, sampling, 1)
        seen = self._seen[sampling]
        while (size := 2 * max(seen.least)) <= largest and max(seen.costs.chunk.values()) < seconds:
            try:
                self._measure(prompt, sampling, size)
            except RuntimeError as error:
                if not is_out_of_memory(error):
                    raise
                seen.least[size] = math.inf  # never drawn, and not tried again
        return seen.costs

    def learn(self, sampling: Sampling, chunks: Iterable[tuple[int, float]], finish: float) -> None:
        """Seconds that a search took for chunks of these sizes, and to finish one candidate.

        A device that others use as well is as slow as they let it be. Nothing is learnt where nothing was measured.
        """
        seen = self._seen.get(sampling)
        if seen is not None:
            seen.add([(size, seconds) for size, seconds in chunks if size in seen.least] + [(_FINISH, finish)])

    def _measure(self, prompt: str, sampling: Sampling, size: int) -> None:
        rounds = [self._round(prompt, sampling, size, number) for number in range(_ROUNDS)][1:]
        seen = self._seen.setdefault(sampling, _Seen())
        for chunk, finish in rounds:
            seen.add([(size, chunk), (_FINISH, finish)])

    def _round(self, prompt: str, sampling: Sampling, size: int, number: int) -> tuple[float, float]:
        """Seconds to draw and judge `size` candidates, and to finish one of them."""
        drawing = Drawing(self._generator, self._verifier, prompt, sampling)
        seeds = tuple(candidate_seed(number, "warm-up", size, index) for index in range(size))
        candidates, _ = drawing.judge(seeds)
        drawing.finish(candidates[[0]])
        spent = drawing.clock.seconds
        return spent["prefix"] + spent["verify"], spent["suffix"] + spent["decode"]
