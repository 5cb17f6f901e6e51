"""What drawing, judging and finishing cost here: measured before a search begins, then learnt from searches."""

import math
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field

from forejudge.budget import Costs
from forejudge.device import is_out_of_memory
from forejudge.draw import Drawing
from forejudge.generators.base import Generator, Sampling
from forejudge.noise import candidate_seed
from forejudge.verifiers.base import Verifier

_ROUNDS = 3  # the first warms up
_REMEMBERED = 8  # times of each kind; the slowest of them counts


def _times() -> deque[float]:
    return deque(maxlen=_REMEMBERED)


@dataclass(frozen=True)
class _Seen:
    """Seconds that each part of a search took the last times; chunks by their size, of which 1 is always there."""

    encode: deque[float] = field(default_factory=_times)
    chunk: dict[int, deque[float]] = field(default_factory=dict)
    finish: deque[float] = field(default_factory=_times)

    @property
    def costs(self) -> Costs:
        slowest = {size: max(times) for size, times in self.chunk.items()}
        # One slow moment must not make budgets too small that could be kept before.
        least = min(self.encode) + min(self.chunk[1]) + min(self.finish)
        return Costs(slowest, max(self.finish), least)

    def add_chunk(self, size: int, seconds: float) -> None:
        self.chunk.setdefault(size, _times()).append(seconds)


class CostModel:
    """Costs by settings, kept as long as the models are loaded."""

    def __init__(self, generator: Generator, verifier: Verifier) -> None:
        self._generator, self._verifier = generator, verifier
        self._seen: dict[Sampling, _Seen] = {}

    def measure(self, prompt: str, sampling: Sampling, largest: int, seconds: float) -> Costs:
        """Costs of chunks of 1, 2, 4, ... candidates, up to `largest`, and of finishing one.

        Larger chunks than the first one that takes more than `seconds`, or more memory than there is, are left out.
        What is known is not measured again.
        """
        if sampling not in self._seen:
            self._measure(prompt, sampling, 1)
        seen = self._seen[sampling]
        while (size := 2 * max(seen.chunk)) <= largest and max(seen.costs.chunk.values()) < seconds:
            try:
                self._measure(prompt, sampling, size)
            except RuntimeError as error:
                if not is_out_of_memory(error):
                    raise
                seen.add_chunk(size, math.inf)  # never drawn, and not tried again
        return seen.costs

    def learn(self, sampling: Sampling, chunks: Iterable[tuple[int, float]], finish: float) -> None:
        """Seconds that a search took for chunks of these sizes, and to finish one candidate.

        A device that others use as well is as slow as they let it be. Nothing is learnt where nothing was measured.
        """
        seen = self._seen.get(sampling)
        if seen is None:
            return
        seen.finish.append(finish)
        for size, seconds in chunks:
            if size in seen.chunk:
                seen.add_chunk(size, seconds)

    def _measure(self, prompt: str, sampling: Sampling, size: int) -> None:
        rounds = [self._round(prompt, sampling, size, number) for number in range(_ROUNDS)][1:]
        seen = self._seen.setdefault(sampling, _Seen())
        for encode, chunk, finish in rounds:
            seen.encode.append(encode)
            seen.add_chunk(size, chunk)
            seen.finish.append(finish)

    def _round(self, prompt: str, sampling: Sampling, size: int, number: int) -> tuple[float, float, float]:
        """Seconds to encode, to draw and judge `size` candidates, and to finish one of them."""
        drawing = Drawing(self._generator, self._verifier, prompt, sampling)
        seeds = tuple(candidate_seed(number, "warm-up", size, index) for index in range(size))
        candidates, _ = drawing.judge(seeds)
        drawing.finish(candidates[[0]])
        spent = drawing.clock.seconds
        return spent["encode"], spent["prefix"] + spent["verify"], spent["suffix"] + spent["decode"]
