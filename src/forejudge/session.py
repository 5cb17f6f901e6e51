"""One prompt being searched: encoded once, candidates generated, scored and finished, every stage timed."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from time import perf_counter
from typing import Any

import torch
from PIL.Image import Image
from torch import Tensor

from forejudge.generators.base import Generator
from forejudge.options import SamplingParams
from forejudge.types import BROKEN, IMAGE, Candidates, Verdict, latent_stage
from forejudge.verifiers.base import Verifier


class PromptSession:
    """A prompt with a generator and a verifier. It is encoded, and its clock starts, when the session is made.

    `encode` replaces the generator's encoding, for instance by a cached one. With `pool`, `pooled` holds the mean over
    tokens of the hidden state that the verifier reads, (D,) on the CPU, by the seed of each candidate scored. Raises
    InvalidRequest for a prompt or sampling parameters that the generator cannot serve.
    """

    def __init__(
        self,
        generator: Generator,
        verifier: Verifier,
        prompt: str,
        sampling: SamplingParams,
        encode: Callable[[str, SamplingParams], Any] | None = None,
        *,
        pool: bool = False,
    ) -> None:
        self.clock = StageClock(generator.device)
        self._generator, self._verifier, self._prompt = generator, verifier, prompt
        self._steps, self._pool = sampling.steps, pool
        self.pooled: dict[int, Tensor] = {}
        with self.clock.stage("encode"):
            self._conditioning = (encode or generator.encode_without_padding)(prompt, sampling)

    def score(self, seeds: tuple[int, ...]) -> tuple[Candidates, list[Verdict]]:
        """Generate candidates up to the furthest stage that the verifier reads, and score them.

        The candidates come without the views that the verifier has read. Broken images get the verdict BROKEN.
        """
        with self.clock.stage("prefix"):
            candidates = self._generator.start(self._conditioning, seeds)
            candidates = self._generator.advance(candidates, self._verifier.reads)
        with self.clock.stage("verify"):
            finite_rows = candidates.finite_rows
            finite = candidates if len(finite_rows) == len(seeds) else candidates[finite_rows]
            scored = self._verifier.score(self._prompt, finite) if finite_rows else []
            verdicts = dict(zip(finite_rows, scored, strict=True))
            if self._pool:
                hidden_NTD = candidates.tensor(min(self._verifier.reads))
                self.pooled |= zip(seeds, hidden_NTD.float().mean(dim=1).cpu(), strict=True)
        return candidates.without_views(), [verdicts.get(row, BROKEN) for row in range(len(seeds))]

    def finish(self, candidate: Candidates, *, refine: bool = False) -> Image:
        """Generate the image of a single candidate, continuing from its stage; with `refine` in one step more.

        Raises BrokenImage, and InvalidRequest for a generator that cannot go on so.
        """
        with self.clock.stage("suffix"):
            if refine:
                candidate = self._generator.with_steps(candidate, self._steps + 1)
            final_stage = latent_stage(self._steps - 1 + refine)
            if candidate.stage < final_stage:
                candidate = self._generator.advance(candidate, [final_stage])
        with self.clock.stage("decode"):
            return self._generator.advance(candidate, [IMAGE]).images[0]


class StageClock:
    """Adds up seconds by stage. A GPU's work is timed by its own events, so that no stage waits for the one before."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._started = perf_counter()
        self._stages: list[tuple[str, Any, Any]] = []  # name, and the marks at both ends

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Add the time spent inside to stage `name`, also if it raises."""
        start = self._mark()
        try:
            yield
        finally:
            self._stages.append((name, start, self._mark()))

    @property
    def seconds(self) -> dict[str, float]:
        """Seconds by stage; waits for work that the GPU has not done yet."""
        totals: dict[str, float] = {}
        for name, start, end in self._stages:
            totals[name] = totals.get(name, 0.0) + self._elapsed_between(start, end)
        return totals

    @property
    def elapsed(self) -> float:
        """Seconds since the clock was made."""
        return perf_counter() - self._started

    def _mark(self) -> Any:
        if self._device.type == "cuda":
            event = torch.cuda.Event(enable_timing=True)
            event.record(torch.cuda.current_stream(self._device))
            return event
        if self._device.type != "cpu":
            torch.accelerator.synchronize(self._device)
        return perf_counter()

    def _elapsed_between(self, start: Any, end: Any) -> float:
        if self._device.type != "cuda":
            return float(end - start)
        end.synchronize()
        return float(start.elapsed_time(end)) / 1000
