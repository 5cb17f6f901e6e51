"""Each stage as a piece of work of its own, for a batch that stands ready where the stage begins."""

from collections.abc import Callable
from copy import copy
from dataclasses import dataclass
from functools import partial

from torch import Tensor

from forejudge.generators.base import Architecture
from forejudge.profiling.profiled import Profiled, judging_stage
from forejudge.profiling.stage_costs import CLIP, DECODE, ENCODE, PREFIX, SUFFIX
from forejudge.types import IMAGE, Candidates, Stage, latent_stage, prefix_stage
from forejudge.verifiers.reading import Reading


@dataclass(frozen=True)
class StageWorks:
    """The parts of a search, made of the very calls of which a search consists."""

    models: Profiled

    def of(self, stage: str, batch: int) -> Callable[[], object]:
        """A stage that `Profiled.costs` names. What comes before it is done here; the work itself can be repeated."""
        models = self.models
        if stage == ENCODE:
            return partial(models.generator.encode_without_padding, models.prompt, models.sampling)
        if stage == PREFIX:
            return partial(self._drawn, batch, self._cut)
        if stage in (SUFFIX, DECODE):
            begin, end = (self._cut, latent_stage()) if stage == SUFFIX else (latent_stage(), IMAGE)
            return partial(models.generator.advance, self._drawn(batch, begin).to_keep(), [end])
        if stage == CLIP:
            verifier = next(each for each in models.verifiers.values() if IMAGE in each.reads)
            return partial(verifier.reading.tokens, self._drawn(batch, IMAGE))
        kind = next(kind for kind in models.verifiers if judging_stage(kind) == stage)
        return self._judging(kind, batch)

    @property
    def _cut(self) -> Stage:
        return prefix_stage(self.models.blocks)

    def _drawn(self, batch: int, stage: Stage) -> Candidates:
        generator = self.models.generator
        return generator.advance(generator.start(self.models.conditioning, tuple(range(batch))), [stage])

    def _judging(self, kind: str, batch: int) -> Callable[[], object]:
        verifier = copy(self.models.verifiers[kind])
        (stage,) = verifier.reads
        candidates = self._drawn(batch, stage)
        verifier.reading = _Seen(verifier.reading, verifier.reading.tokens(candidates))
        return partial(verifier.judge, self.models.prompt, candidates)


class _Seen(Reading):
    """A reading that has looked already."""

    def __init__(self, reading: Reading, tokens_NTD: Tensor) -> None:
        self.name, self.stage, self._reading, self._tokens_NTD = reading.name, reading.stage, reading, tokens_NTD

    def width(self, architecture: Architecture) -> int:
        """See `Reading.width`."""
        return self._reading.width(architecture)

    def tokens(self, candidates: Candidates) -> Tensor:
        """See `Reading.tokens`."""
        return self._tokens_NTD
