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
from forejudge.generators.base import Generator, SamplingParams
from forejudge.noise import MAX_SEED, candidate_seed
from forejudge.policies import DEFAULT_MAX_N, SearchLimits, SearchPolicy, StopReason
from forejudge.types import IMAGE, Candidates, Verdict, latent_stage
from forejudge.verifiers.base import Verifier

# FOLDED: What one search is asked for, checked: a prompt, limits, seeds, and how candidates are drawn.


@dataclass(frozen=True)
class SearchOptions:
    """`seeds` are those of all candidates there may be; `seed` is what they follow from, None if they were given."""

    prompt: str
    limits: SearchLimits
    seeds: tuple[int, ...]
    seed: int | None
    image_index: int
    top_k: int
    sampling: SamplingParams

    @classmethod
    def from_arguments(
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
        sampling: SamplingParams,
    ) -> "SearchOptions":
        """See `BestOfN.__call__`. Raises InvalidRequest for what no search can do."""
        if seeds is not None:
            n = _validate_seeds(seeds, n)
        limits = SearchLimits(n, budget_ms, until, DEFAULT_MAX_N if max_n is None else max_n)
        if top_k < 1:
            raise InvalidRequest(f"top_k = {top_k} finishes nothing: it must be at least 1")
        if seeds is not None:
            return cls(prompt, limits, tuple(seeds), None, image_index, top_k, sampling)
        derived_seeds = tuple(candidate_seed(seed, prompt, image_index, index) for index in range(limits.cap))
        return cls(prompt, limits, derived_seeds, seed, image_index, top_k, sampling)


def _validate_seeds(seeds: Sequence[int], n: int | None) -> int:
    """Raises InvalidRequest where there are not `n`, or one cannot be a seed."""
    if not seeds or not all(0 <= seed <= MAX_SEED for seed in seeds):
        raise InvalidRequest(f"seeds must be one or more numbers from 0 to {MAX_SEED}")
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
        start = self._mark()
        try:
            yield
        finally:
            self._stages.append((name, start, self._mark()))

    @property
    def seconds(self) -> dict[str, float]:
        """By stage; waits for work that is not done yet."""
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


# FOLDED: One prompt at work: encoded once, candidates drawn and judged chunk by chunk, the best ones finished; all timed.


class PromptSession:
    """Encodes the prompt when it is made; its clock starts then. `encode` may do so from memory.

    Raises InvalidRequest for a prompt or for sizes that the generator cannot serve.
    """

    def __init__(
        self,
        generator: Generator,
        verifier: Verifier,
        prompt: str,
        sampling: SamplingParams,
        encode: Callable[[str, SamplingParams], Any] | None = None,
    ) -> None:
        self.clock = StageClock(generator.device)
        self._generator, self._verifier, self._prompt = generator, verifier, prompt
        self._final_latent_stage = latent_stage(sampling.steps - 1)
        with self.clock.stage("encode"):
            self._conditioning = (encode or generator.encode_without_padding)(prompt, sampling)

    def score(self, seeds: tuple[int, ...]) -> tuple[Candidates, list[Verdict]]:
        """New candidates at the furthest stage that the verifier reads, ready to be kept, and their verdicts."""
        with self.clock.stage("prefix"):
            candidates = self._generator.start(self._conditioning, seeds)
            candidates = self._generator.advance(candidates, self._verifier.reads)
        with self.clock.stage("verify"):
            verdicts = self._verifier.score(self._prompt, candidates)
        return candidates.without_views(), verdicts

    def finish(self, candidate: Candidates) -> Image:
        """The picture of a single candidate, from where it stands."""
        with self.clock.stage("suffix"):
            if candidate.stage < self._final_latent_stage:
                candidate = self._generator.advance(candidate, [self._final_latent_stage])
        with self.clock.stage("decode"):
            return self._generator.advance(candidate, [IMAGE]).images[0]


# FOLDED: From verdicts to a winner. Pure functions.


PASS_THRESHOLD = 0.5  # a candidate passes when its calibrated probability reaches this


def order_by_score(verdicts: Sequence[Verdict]) -> tuple[int, ...]:
    """Candidate indices from best to worst; of equal scores the one drawn first stands first."""
    return tuple(sorted(range(len(verdicts)), key=lambda index: (-verdicts[index].score, index)))


def first_index_reaching(verdicts: Sequence[Verdict], probability: float) -> int | None:
    """The first index whose calibrated probability reaches `probability`, if any."""
    for index, verdict in enumerate(verdicts):
        if verdict.probability is not None and verdict.probability >= probability:
            return index
    return None


def passed(verdict: Verdict) -> bool | None:
    """Whether a verdict says yes; None where the verifier has no calibrated probability."""
    return None if verdict.probability is None else verdict.probability >= PASS_THRESHOLD


OnProgress = Callable[[int, int], None]  # candidates judged, the most there will be


@dataclass(frozen=True)
class SearchOutput:
    """What a search found. `order` ranks the used candidates; `images` are those of the best, best first."""

    verdicts: tuple[Verdict, ...]
    order: tuple[int, ...]
    images: dict[int, Image]
    stopped_by: StopReason
    num_generated: int
    timings: dict[str, float]


class Search:
    """One Best-of-N search over one prompt; only the `top_k` best candidates are kept."""

    def __init__(self, session: PromptSession, policy: SearchPolicy, top_k: int) -> None:
        self.session, self.policy, self.top_k = session, policy, top_k
        self.verdicts: list[Verdict] = []
        self.best: dict[int, Candidates] = {}
        self.num_generated = 0

    def run(self, seeds: tuple[int, ...], on_progress: OnProgress | None = None) -> SearchOutput:
        """Draw chunk after chunk until a limit is reached, then finish the best."""
        stopped_by: StopReason | None = None
        while stopped_by is None and (size := self.policy.next_batch(self.num_generated, self.session.clock.elapsed)):
            stopped_by = self._add_batch(*self._score_batch(seeds[self.num_generated : self.num_generated + size]))
            if on_progress:
                on_progress(len(self.verdicts), self.policy.limits.cap)
        return self._finish(stopped_by or self.policy.stopped_by(self.num_generated))

    def _score_batch(self, seeds: tuple[int, ...]) -> tuple[Candidates, list[Verdict]]:
        """Judge a chunk; where memory runs out, half of it, and so from then on."""
        batch_start = self.session.clock.elapsed
        try:
            scored = self.session.score(seeds)
        except RuntimeError as error:
            if len(seeds) == 1 or not is_out_of_memory(error):
                raise
        else:
            self.policy.record_batch(len(seeds), self.session.clock.elapsed - batch_start)
            return scored
        # Out here the error is gone, and with it the tensors that its traceback kept alive.
        free_memory()
        self.policy.on_out_of_memory(len(seeds))
        return self._score_batch(seeds[: len(seeds) // 2])

    def _add_batch(self, candidates: Candidates, verdicts: list[Verdict]) -> StopReason | None:
        """Add a chunk, up to the first candidate that ends the search."""
        offset, until = len(self.verdicts), self.policy.limits.until
        self.num_generated += len(verdicts)
        stop_index = None if until is None else first_index_reaching(verdicts, until)
        self.verdicts += verdicts if stop_index is None else verdicts[: stop_index + 1]
        best_indices = order_by_score(self.verdicts)[: self.top_k]
        self.best = {
            index: candidates[[index - offset]] if index >= offset else self.best[index] for index in best_indices
        }
        return None if stop_index is None else "until"

    def _finish(self, stopped_by: StopReason) -> SearchOutput:
        images = {index: self.session.finish(candidate) for index, candidate in self.best.items()}
        clock = self.session.clock
        timings = clock.seconds | {"total": clock.elapsed}
        return SearchOutput(
            tuple(self.verdicts), order_by_score(self.verdicts), images, stopped_by, self.num_generated, timings
        )
