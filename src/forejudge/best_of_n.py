"""The product: judge N candidates before they are drawn, and draw the best.

    conditioning = generator.encode_without_padding(prompt)        # once per prompt
    candidates   = generator.start(conditioning, seeds)            # noise only
    candidates   = generator.advance(candidates, verifier.reads)   # to the furthest stage it reads
    verdicts     = verifier.judge(prompt, candidates)              # one verdict per candidate
    winner       = select(verdicts)
    image        = generator.advance(candidates[winner], IMAGE)    # continues, never restarts

A budget only decides which seeds are drawn next, chunk by chunk; `search` holds that loop.
"""

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

from forejudge.budget import DEFAULT_MAX_N, Limits, Pace
from forejudge.compiling import compiler_problem
from forejudge.costs import CostModel
from forejudge.device import AUTO, dtype_name, resolve_device, resolve_dtype
from forejudge.draw import Drawing
from forejudge.errors import InvalidRequest
from forejudge.generators import KNOWN_MODELS, as_generator, find_spec, load_generator
from forejudge.generators.base import Generator, Sampling
from forejudge.noise import LARGEST_SEED, candidate_seed
from forejudge.result import Result, Settings
from forejudge.search import OnProgress, Search
from forejudge.search_record import search_record
from forejudge.verifiers import load_verifier
from forejudge.verifiers.base import Verifier

LARGEST_CHUNK = 32


class BestOfN:
    """A generator and a verifier that reads it, ready to pick the best of N.

    `generator` may be a diffusers pipeline, which stays as it is. `batch_size` is the most candidates drawn at once;
    None draws up to 32, as many as fit in memory. `judge_step` is the denoising step, counted from 0, in which the
    verifier reads. The last `prompts_kept` prompts stay encoded, so that one that comes again is not encoded again:
    after a change of a pipeline's text encoder make a new one. With `compiled` both are compiled where torch.compile
    works; elsewhere a warning says why not. Raises MismatchError when the verifier cannot read the generator.
    """

    def __init__(
        self,
        generator: Generator | Any,
        verifier: Verifier,
        *,
        batch_size: int | None = None,
        judge_step: int = 0,
        prompts_kept: int = 16,
        compiled: bool = False,
    ) -> None:
        if batch_size is not None and batch_size < 1:
            raise InvalidRequest(f"batch_size = {batch_size} draws nothing: it must be at least 1")
        if judge_step < 0:
            raise InvalidRequest(f"judge_step = {judge_step} is no step: the first is 0")
        self.generator = generator if isinstance(generator, Generator) else as_generator(generator)
        self.verifier, self.batch_size = verifier.in_step(judge_step), batch_size
        self.warnings = tuple(verifier.check(self.generator))
        self.compiled = compiled and self._compile()
        self.costs = CostModel(self.generator, self.verifier)
        self._encode = lru_cache(maxsize=prompts_kept)(self.generator.encode_without_padding)

    @classmethod
    def from_pretrained(
        cls,
        generator: str = "miniature",
        verifier: str | None = None,
        *,
        device: str | None = None,
        dtype: str = AUTO,
        batch_size: int | None = None,
        judge_step: int = 0,
        offload: str | None = None,
        compiled: bool = False,
    ) -> "BestOfN":
        """Load both. The verifier defaults to the one that goes with the generator, dtype to what suits the device.

        With `offload` = "text-encoder" the generator's text encoders are on the device only while they encode.

        Raises InvalidRequest for an unknown name, CheckpointError for a folder that is incomplete.
        """
        spec = find_spec(generator)
        if verifier is None and (spec is None or spec.verifier is None):
            judged = [name for name, known in KNOWN_MODELS.items() if known.verifier]
            raise InvalidRequest(
                f"no verifier is known to go with generator {generator!r}: name one, or use {', '.join(judged)}"
            )
        where = resolve_device(device)
        kind = resolve_dtype(dtype, where)
        return cls(
            load_generator(generator, where, kind, offload),
            load_verifier(verifier or generator, where, kind),
            batch_size=batch_size,
            judge_step=judge_step,
            compiled=compiled,
        )

    def __call__(
        self,
        prompt: str,
        n: int | None = None,
        *,
        seed: int = 0,
        seeds: Sequence[int] | None = None,
        image_index: int = 0,
        budget_ms: float | None = None,
        until: float | None = None,
        max_n: int | None = None,
        top_k: int = 1,
        sampling: Sampling | None = None,
        on_progress: OnProgress | None = None,
    ) -> Result:
        """Draw, judge, pick and finish; see `Limits` for n (8 by default), budget_ms, until and max_n.

        `seeds` lists candidate seeds outright; otherwise they follow from `seed`, the prompt and `image_index`.
        `top_k` pictures are finished, the best ones. Raises InvalidRequest for what cannot be served.
        """
        limits = _limits(n, seeds, budget_ms, until, max_n)
        if top_k < 1:
            raise InvalidRequest(f"top_k = {top_k} finishes nothing: it must be at least 1")
        if until is not None and not self.verifier.calibrated:
            raise InvalidRequest(
                f"until needs a probability, and verifier {self.verifier.name} is not calibrated: use n instead"
            )
        sampling = sampling or self.generator.defaults
        if seeds is None:
            chosen = tuple(candidate_seed(seed, prompt, image_index, index) for index in range(limits.cap))
        else:
            chosen = tuple(seeds)
        pace = self._pace(prompt, sampling, limits, top_k)
        drawing = Drawing(self.generator, self.verifier, prompt, sampling, self._encode)
        found = Search(drawing, pace, top_k).run(chosen, on_progress)
        finishing = found.timings["suffix"] + found.timings["decode"]
        self.costs.learn(sampling, pace.observed, finishing / len(found.images))
        settings = self._settings(seed if seeds is None else None, image_index, sampling)
        return Result(search_record(prompt, chosen, found, settings, self.generator, self.verifier), found.images)

    def _compile(self) -> bool:
        """Whether it could be done."""
        if problem := compiler_problem(self.generator.device):
            self.warnings += (f"nothing is compiled, for torch.compile does not work here: {problem}",)
            return False
        generator, verifier = self.generator, self.verifier
        self.generator, self.verifier = generator.compiled(), verifier.compiled()
        plain = [f"generator {generator.name}"] if self.generator is generator else []
        plain += [f"verifier {verifier.name}"] if self.verifier is verifier else []
        self.warnings += tuple(f"{name} is not compiled, for it has nothing that can be" for name in plain)
        return len(plain) < 2

    def _pace(self, prompt: str, sampling: Sampling, limits: Limits, top_k: int) -> Pace:
        largest = min(self.batch_size or LARGEST_CHUNK, limits.cap)
        if limits.budget_ms is None:
            return Pace(limits, largest)
        costs = self.costs.measure(prompt, sampling, largest, limits.budget_ms / 1000)
        return Pace(limits, largest, top_k, costs)

    def _settings(self, seed: int | None, image_index: int, sampling: Sampling) -> Settings:
        return Settings(
            generator=self.generator.name,
            verifier=self.verifier.name,
            seed=seed,
            image_index=image_index,
            sampling=sampling,
            generator_options=self.generator.options.model_dump(),
            device=str(self.generator.device),
            dtype=dtype_name(self.generator.dtype),
            batch_size=self.batch_size,
            compiled=self.compiled,
            warnings=self.warnings,
        )


def _limits(
    n: int | None,
    seeds: Sequence[int] | None,
    budget_ms: float | None,
    until: float | None,
    max_n: int | None,
) -> Limits:
    if seeds is not None:
        if not seeds or not all(0 <= seed <= LARGEST_SEED for seed in seeds):
            raise InvalidRequest(f"seeds must be one or more numbers from 0 to {LARGEST_SEED}")
        if n is not None and n != len(seeds):
            raise InvalidRequest(f"n = {n} contradicts the {len(seeds)} seeds given: leave one out")
        n = len(seeds)
    return Limits(n, budget_ms, until, DEFAULT_MAX_N if max_n is None else max_n)
