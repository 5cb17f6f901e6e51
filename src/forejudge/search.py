"""The loop: draw, judge, keep the best, finish the winner from where it stands.

It names no generator and no verifier. A budget only decides how many seeds are drawn next.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from time import perf_counter
from typing import Any

import torch
from PIL.Image import Image

from forejudge.device import free_memory, is_out_of_memory
from forejudge.errors import InvalidRequest
from forejudge.generators.base import Generator, Sampling
from forejudge.noise import LARGEST_SEED, candidate_seed
from forejudge.policies import DEFAULT_MAX_N, EndedBy, Limits, Pace
from forejudge.types import IMAGE, Candidates, Verdict, latent_stage
from forejudge.verifiers.base import Verifier

# FOLDED: What one search is asked for, checked: a prompt, limits, seeds, and how candidates are drawn.


@dataclass(frozen=True)
class Asked:
    """`seeds` are those of all candidates there may be; `seed` is what they follow from, None if they were given."""

    prompt: str
    limits: Limits
    seeds: tuple[int, ...]
    seed: int | None
    image_index: int
    top_k: int
    sampling: Sampling

    @classmethod
    def of(
        cls,
        prompt: str,
        n: int | None,
        *,
        seed: int,
        seeds: Sequence[int] | None,
        image_index: int,
        budget_ms: float | None,
        until: float | None,
        max_n: int | None,
        top_k: int,
        sampling: Sampling,
    ) -> "Asked":
        """See `BestOfN.__call__`. Raises InvalidRequest for what no search can do."""
        if seeds is not None:
            n = _number_of(seeds, n)
        limits = Limits(n, budget_ms, until, DEFAULT_MAX_N if max_n is None else max_n)
        if top_k < 1:
            raise InvalidRequest(f"top_k = {top_k} finishes nothing: it must be at least 1")
        if seeds is not None:
            return cls(prompt, limits, tuple(seeds), None, image_index, top_k, sampling)
        following = tuple(candidate_seed(seed, prompt, image_index, index) for index in range(limits.cap))
        return cls(prompt, limits, following, seed, image_index, top_k, sampling)


def _number_of(seeds: Sequence[int], n: int | None) -> int:
    """Raises InvalidRequest where there are not `n`, or one cannot be a seed."""
    if not seeds or not all(0 <= seed <= LARGEST_SEED for seed in seeds):
        raise InvalidRequest(f"seeds must be one or more numbers from 0 to {LARGEST_SEED}")
    if n is not None and n != len(seeds):
        raise InvalidRequest(f"n = {n} contradicts the {len(seeds)} seeds given: leave one out")
    return len(seeds)


# FOLDED: Time by stage. A GPU's own clock is read for its work, so that nobody waits for a stage to end.


class StageClock:
    """Adds up seconds per stage; `elapsed` counts from when the clock was made.

    On a CUDA device a stage lasts until its work is done, also where that was only asked for; on others of that kind
    the end of a stage waits for it.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._started = perf_counter()
        self._stages: list[tuple[str, Any, Any]] = []  # with the marks at both ends

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Count what happens inside to `name`."""
        began = self._mark()
        try:
            yield
        finally:
            self._stages.append((name, began, self._mark()))

    @property
    def seconds(self) -> dict[str, float]:
        """By stage; waits for work that is not done yet."""
        found: dict[str, float] = {}
        for name, began, ended in self._stages:
            found[name] = found.get(name, 0.0) + self._between(began, ended)
        return found

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

    def _between(self, began: Any, ended: Any) -> float:
        if self._device.type != "cuda":
            return float(ended - began)
        ended.synchronize()
        return float(began.elapsed_time(ended)) / 1000


# FOLDED: One prompt at work: encoded once, candidates drawn and judged chunk by chunk, the best ones finished; all timed.


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


# FOLDED: From verdicts to a winner. Pure functions.


PASSES = 0.5  # a candidate passes when its calibrated probability reaches this


def order_by_score(verdicts: Sequence[Verdict]) -> tuple[int, ...]:
    """Candidate indices from best to worst; of equal scores the one drawn first stands first."""
    return tuple(sorted(range(len(verdicts)), key=lambda index: (-verdicts[index].score, index)))


def first_reaching(verdicts: Sequence[Verdict], probability: float) -> int | None:
    """The first index whose calibrated probability reaches `probability`, if any."""
    for index, verdict in enumerate(verdicts):
        if verdict.probability is not None and verdict.probability >= probability:
            return index
    return None


def passed(verdict: Verdict) -> bool | None:
    """Whether a verdict says yes; None where the verifier has no calibrated probability."""
    return None if verdict.probability is None else verdict.probability >= PASSES


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
