"""One prompt at work: encoded once, candidates drawn and judged chunk by chunk, the best ones finished; all timed."""

from collections.abc import Callable
from typing import Any

from PIL.Image import Image

from forejudge.clock import StageClock
from forejudge.generators.base import Generator, Sampling
from forejudge.types import IMAGE, Candidates, Verdict, latent_stage
from forejudge.verifiers.base import Verifier


class Drawing:
    """Encodes the prompt when it is made; its clock starts then. `encode` may do so from memory.

    Raises InvalidRequest for a prompt or for sizes that the generator cannot serve.
    """

    def __init__(
        self,
        generator: Generator,
        verifier: Verifier,
        prompt: str,
        sampling: Sampling,
        encode: Callable[[str, Sampling], Any] | None = None,
    ) -> None:
        self.clock = StageClock(generator.device)
        self._generator, self._verifier, self._prompt = generator, verifier, prompt
        self._last_latent = latent_stage(sampling.steps - 1)
        with self.clock.stage("encode"):
            self._conditioning = (encode or generator.encode_without_padding)(prompt, sampling)

    def judge(self, seeds: tuple[int, ...]) -> tuple[Candidates, list[Verdict]]:
        """New candidates at the furthest stage that the verifier reads, ready to be kept, and their verdicts."""
        with self.clock.stage("prefix"):
            candidates = self._generator.start(self._conditioning, seeds)
            candidates = self._generator.advance(candidates, self._verifier.reads)
        with self.clock.stage("verify"):
            verdicts = self._verifier.judge(self._prompt, candidates)
        return candidates.to_keep(), verdicts

    def finish(self, candidate: Candidates) -> Image:
        """The picture of a single candidate, from where it stands."""
        with self.clock.stage("suffix"):
            if candidate.stage < self._last_latent:
                candidate = self._generator.advance(candidate, [self._last_latent])
        with self.clock.stage("decode"):
            return self._generator.advance(candidate, [IMAGE]).pictures[0]
