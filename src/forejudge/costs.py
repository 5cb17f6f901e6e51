"""Latency of the parts of a search on this device: measured before the first search, then learned from searches."""

import math
from collections import deque
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field

from forejudge.device import is_out_of_memory
from forejudge.errors import BrokenImage
from forejudge.generators.base import Generator
from forejudge.noise import candidate_seed
from forejudge.options import SamplingParams
from forejudge.policies import LatencyEstimate
from forejudge.session import PromptSession
from forejudge.verifiers.base import Verifier

_ROUNDS = 3  # the first warms up
_HISTORY_SIZE = 8  # searches
_FINISH = 0  # stands for finishing where others are batch sizes


class CostModel:
    """Latency estimates by sampling parameters, kept as long as the models are loaded."""

    def __init__(self, generator: Generator, verifier: Verifier) -> None:
        self._generator, self._verifier = generator, verifier
        self._histories: dict[tuple[SamplingParams, bool], _TimingHistory] = {}

    def measure(
        self, prompt: str, sampling: SamplingParams, max_batch_size: int, seconds: float, *, refine: bool = False
    ) -> LatencyEstimate:
        """Estimate the latency of batches of 1, 2, 4, ... candidates, up to `max_batch_size`, and of finishing one.

        With `refine` it is finished in one denoising step more.
        Leaves out batches larger than the first one that takes more than `seconds` or does not fit in memory. Sizes
        measured before are not measured again, unless `seconds` seem too few for one candidate.
        """
        key = sampling, refine
        if key not in self._histories or seconds < self._histories[key].costs.min_seconds:
            self._measure(prompt, sampling, 1, refine)
        history = self._histories[key]
        while (size := 2 * max(history.min_seconds)) <= max_batch_size and max(history.costs.batch.values()) < seconds:
            try:
                self._measure(prompt, sampling, size, refine)
            except RuntimeError as error:
                if not is_out_of_memory(error):
                    raise
                history.min_seconds[size] = math.inf  # never generated, and not tried again
        return history.costs

    def learn(
        self, sampling: SamplingParams, batches: Iterable[tuple[int, float]], finish: float, *, refined: bool = False
    ) -> None:
        """Add the seconds that a search took for batches of these sizes, and to finish one candidate, `refined` or not.

        A device shared with others is as slow as they leave it. Without a measurement before, nothing is learned.
        """
        history = self._histories.get((sampling, refined))
        if history is not None:
            known_batches = [(size, seconds) for size, seconds in batches if size in history.min_seconds]
            history.add([*known_batches, (_FINISH, finish)])

    def _measure(self, prompt: str, sampling: SamplingParams, size: int, refine: bool) -> None:
        rounds = [self._run_round(prompt, sampling, size, number, refine) for number in range(_ROUNDS)][1:]
        history = self._histories.setdefault((sampling, refine), _TimingHistory())
        for batch, finish in rounds:
            history.add([(size, batch), (_FINISH, finish)])

    def _run_round(
        self, prompt: str, sampling: SamplingParams, size: int, round_index: int, refine: bool
    ) -> tuple[float, float]:
        """Return the seconds to generate and score `size` candidates, and to finish one of them."""
        session = PromptSession(self._generator, self._verifier, prompt, sampling)
        seeds = tuple(candidate_seed(round_index, "warm-up", size, index) for index in range(size))
        candidates, _ = session.score(seeds)
        with suppress(BrokenImage):  # it takes as long
            session.finish(candidates[[0]], refine=refine)
        timings = session.clock.seconds
        return timings["prefix"] + timings["verify"], timings["suffix"] + timings["decode"]


@dataclass
class _TimingHistory:
    """Least seconds by batch size and of finishing, and by how much each of the last searches was slower.

    All sizes share one slowdown, so that a fast search with small batches shows that large ones fit again.
    """

    min_seconds: dict[int, float] = field(default_factory=dict)
    slowdowns: deque[float] = field(default_factory=lambda: deque(maxlen=_HISTORY_SIZE))

    @property
    def costs(self) -> LatencyEstimate:
        slowdown = max(self.slowdowns)
        batch = {size: seconds * slowdown for size, seconds in self.min_seconds.items() if size != _FINISH}
        finish = self.min_seconds[_FINISH]
        return LatencyEstimate(batch, finish * slowdown, self.min_seconds[1] + finish)

    def add(self, times: Sequence[tuple[int, float]]) -> None:
        """Add the seconds of one search by size, sizes measured for the first time included."""
        for size, seconds in times:
            self.min_seconds[size] = min(seconds, self.min_seconds.get(size, math.inf))
        self.slowdowns.append(max(seconds / self.min_seconds[size] for size, seconds in times))
