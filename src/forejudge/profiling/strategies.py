"""Ways to pick the best of N, which draw the same candidates: a search of ours, and one that decodes all of them."""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from copy import copy
from dataclasses import dataclass
from functools import partial
from typing import ClassVar, Self

from PIL.Image import Image

from forejudge.best_of_n import BestOfN
from forejudge.costs import CostModel
from forejudge.device import free_memory
from forejudge.draw import Drawing
from forejudge.profiling.device_rates import DeviceRates
from forejudge.profiling.profiled import Profiled, judging_stage
from forejudge.profiling.stage_costs import CLIP, DECODE, ENCODE, PREFIX, SUFFIX, StageCost
from forejudge.profiling.stage_runs import StageRun, total_floor, total_flops
from forejudge.profiling.stage_timing import timed_in_turns
from forejudge.types import IMAGE
from forejudge.verifiers.base import Verifier

_CHOOSING_ROUNDS = 5  # of a batch size
DRAWING = (PREFIX, SUFFIX, DECODE)  # the stages between noise and a picture


@dataclass(frozen=True)
class Picked:
    """The place of the winner's seed, and its picture."""

    winner: int
    picture: Image


class Strategy(ABC):
    """A way to pick the best of N with the verifier of a kind. `batch_size` candidates, up to `most`, go together."""

    name: ClassVar[str]
    needs: ClassVar[str]  # what a verifier must read, in words

    def __init__(self, models: Profiled, kind: str, most: int) -> None:
        self.models, self.kind, self.verifier = models, kind, models.verifiers[kind]
        self.batch_size = self._best_batch_size(most)

    @staticmethod
    @abstractmethod
    def takes(verifier: Verifier) -> bool:
        """Whether it is a way for such a verifier."""

    @abstractmethod
    def _best_batch_size(self, most: int) -> int:
        """With how many at once a candidate takes the least time."""

    @abstractmethod
    def run(self, seeds: tuple[int, ...]) -> Picked:
        """From the prompt to the winner's picture."""

    @abstractmethod
    def judging(self, seeds: tuple[int, ...]) -> Callable[[], object]:
        """The part of it that draws and judges candidates, ready to be run."""

    @abstractmethod
    def stage_runs(self, n: int) -> Sequence[StageRun]:
        """All that a run with `n` candidates consists of."""

    @property
    def plain(self) -> Self:
        """The same with nothing compiled."""
        found = copy(self)
        found.models = self.models.uncompiled
        found.verifier = found.models.verifiers[self.kind]
        return found

    def flops(self, n: int) -> int:
        """Floating-point operations of a run."""
        return total_flops(self.stage_runs(n), self._costs)

    def floor_milliseconds(self, n: int, rates: DeviceRates) -> float:
        """The least time of a run."""
        return total_floor(self.stage_runs(n), self._costs, self.models.generator.dtype.itemsize, rates)

    @property
    def _costs(self) -> Mapping[str, StageCost]:
        """Of each stage."""
        return self.models.costs

    @property
    def candidate_stages(self) -> tuple[str, ...]:
        """What every candidate goes through until it is judged."""
        (stage,) = self.verifier.reads
        looking = (CLIP,) if stage == IMAGE else ()
        return DRAWING[: stage.phase] + looking + (judging_stage(self.kind),)


class BatchedSearch(Strategy):
    """This package's own loop."""

    def _best_batch_size(self, most: int) -> int:
        """Measured here in turns, among the powers of 2 for which memory suffices."""
        models = self.models
        costs = CostModel(models.generator, self.verifier).measure(models.prompt, models.sampling, most, math.inf)
        free_memory()
        drawing = self._drawing()
        chunks = {size: tuple(range(size)) for size, seconds in costs.chunk.items() if math.isfinite(seconds)}
        works = {size: partial(drawing.judge, seeds) for size, seeds in chunks.items()}
        timings = timed_in_turns(works, models.generator.device, _CHOOSING_ROUNDS, warm_up=0)
        return min(timings, key=lambda size: timings[size].median / size)

    def run(self, seeds: tuple[int, ...]) -> Picked:
        """See `Strategy.run`."""
        models = self.models
        best = BestOfN(models.generator, self.verifier, batch_size=self.batch_size)
        found = best(models.prompt, seeds=seeds, sampling=models.sampling)
        return Picked(found.record.winner, found.image)

    def judging(self, seeds: tuple[int, ...]) -> Callable[[], object]:
        """See `Strategy.judging`."""
        chunks = [seeds[first : first + self.batch_size] for first in range(0, len(seeds), self.batch_size)]
        return partial(_judge_all, self._drawing(), chunks)

    def stage_runs(self, n: int) -> list[StageRun]:
        """See `Strategy.stage_runs`: nothing is done twice, and what nobody reads is done for the winner alone."""
        full, rest = divmod(n, self.batch_size)
        chunks = [(size, times) for size, times in ((self.batch_size, full), (rest, 1)) if size and times]
        judged = [StageRun(stage, *chunk) for stage in self.candidate_stages for chunk in chunks]
        finished = [StageRun(stage, 1) for stage in DRAWING if stage not in self.candidate_stages]
        return [StageRun(ENCODE, 1), *judged, *finished]

    def _drawing(self) -> Drawing:
        models = self.models
        return Drawing(models.generator, self.verifier, models.prompt, models.sampling)


def _judge_all(drawing: Drawing, chunks: Sequence[tuple[int, ...]]) -> None:
    for chunk in chunks:
        drawing.judge(chunk)


class Forejudge(BatchedSearch):
    """Judged before they are drawn, from a hidden state or a latent; only the winner is finished."""

    name, needs = "forejudge", "hidden or latent"

    @staticmethod
    def takes(verifier: Verifier) -> bool:
        """See `Strategy.takes`."""
        return IMAGE not in verifier.reads


class DecodeAll(BatchedSearch):
    """Every candidate is decoded and seen by CLIP, with nothing done twice: MLLM w/ CLIP as well as it can be run."""

    name, needs = "decode-all", "clip"

    @staticmethod
    def takes(verifier: Verifier) -> bool:
        """See `Strategy.takes`."""
        return IMAGE in verifier.reads
