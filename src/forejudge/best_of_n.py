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

from forejudge.compiling import compile_error, compiler_problem
from forejudge.costs import CostModel
from forejudge.device import AUTO, dtype_name, resolve_device, resolve_dtype
from forejudge.errors import InvalidRequest
from forejudge.generators import KNOWN_MODELS, as_generator, find_spec, load_generator
from forejudge.generators.base import Generator, Sampling
from forejudge.policies import Pace
from forejudge.result import Result, Settings, search_record
from forejudge.search import Asked, Drawing, OnProgress, Search
from forejudge.verifiers import load_verifier
from forejudge.verifiers.base import Verifier

LARGEST_CHUNK = 32


class BestOfN:
    """A generator and a verifier that reads it, ready to pick the best of N.

    `generator` may be a diffusers pipeline, which stays as it is. `batch_size` is the most candidates drawn at once;
    None draws up to 32, as many as fit in memory. `judge_step` is the denoising step, counted from 0, in which the
    verifier reads. The last `prompts_kept` prompts stay encoded, so that one that comes again is not encoded again:
    after a change of a pipeline's text encoder make a new one. With `compiled` both are compiled as they are then
    (adapters, offloading and tiling come before) where torch.compile works; elsewhere a warning says why not. Raises
    MismatchError when the verifier cannot read the generator.
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
        generator = generator if isinstance(generator, Generator) else as_generator(generator)
        self.batch_size, self._prompts_kept = batch_size, prompts_kept
        self.warnings, self.compiled = tuple(verifier.check(generator)), False
        self._plain = generator, verifier.in_step(judge_step)
        self._use(*self._plain)
        if compiled:
            self._compile()

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
        asked = Asked.of(
            prompt,
            n,
            seed=seed,
            seeds=seeds,
            image_index=image_index,
            budget_ms=budget_ms,
            until=until,
            max_n=max_n,
            top_k=top_k,
            sampling=sampling or self.generator.defaults,
        )
        if until is not None and not self.verifier.calibrated:
            raise InvalidRequest(
                f"until needs a probability, and verifier {self.verifier.name} is not calibrated: use n instead"
            )
        try:
            return self._search(asked, on_progress)
        except RuntimeError as error:
            self._go_on_plainly(error)
        return self._search(asked, on_progress)

    @property
    def largest_chunk(self) -> int:
        """The most candidates that are drawn at once."""
        return self.batch_size or LARGEST_CHUNK

    def _search(self, asked: Asked, on_progress: OnProgress | None) -> Result:
        pace = self._pace(asked)
        drawing = Drawing(self.generator, self.verifier, asked.prompt, asked.sampling, self._encode)
        found = Search(drawing, pace, asked.top_k).run(asked.seeds, on_progress)
        finishing = found.timings["suffix"] + found.timings["decode"]
        self.costs.learn(asked.sampling, pace.observed, finishing / len(found.images))
        record = search_record(asked, found, self._settings(asked), self.generator, self.verifier)
        return Result(record, found.images)

    def _use(self, generator: Generator, verifier: Verifier) -> None:
        """From now on; what is known of others is forgotten."""
        self.generator, self.verifier = generator, verifier
        self.costs = CostModel(generator, verifier)
        self._encode = lru_cache(maxsize=self._prompts_kept)(generator.encode_without_padding)

    def _compile(self) -> None:
        """As far as it can be done."""
        generator, verifier = self._plain
        if problem := compiler_problem(generator.device):
            self.warnings += (f"nothing is compiled, for torch.compile does not work here: {problem}",)
            return
        self._use(generator.compiled(), verifier.compiled())
        plain = [f"generator {generator.name}"] if self.generator is generator else []
        plain += [f"verifier {verifier.name}"] if self.verifier is verifier else []
        self.warnings += tuple(f"{name} is not compiled, for it has nothing that can be" for name in plain)
        self.compiled = len(plain) < 2

    def _go_on_plainly(self, error: RuntimeError) -> None:
        """After an error of torch.compile; raises any other."""
        said = compile_error(error)
        if not self.compiled or said is None:
            raise error
        self._use(*self._plain)
        self.compiled = False
        self.warnings += (f"nothing is compiled, for torch.compile failed: {said}",)

    def _pace(self, asked: Asked) -> Pace:
        limits, largest = asked.limits, min(self.largest_chunk, asked.limits.cap)
        if limits.budget_ms is None:
            return Pace(limits, largest)
        costs = self.costs.measure(asked.prompt, asked.sampling, largest, limits.budget_ms / 1000)
        return Pace(limits, largest, asked.top_k, costs)

    def _settings(self, asked: Asked) -> Settings:
        return Settings(
            generator=self.generator.name,
            verifier=self.verifier.name,
            seed=asked.seed,
            image_index=asked.image_index,
            sampling=asked.sampling,
            generator_options=self.generator.options.model_dump(),
            device=str(self.generator.device),
            dtype=dtype_name(self.generator.dtype),
            batch_size=self.batch_size,
            compiled=self.compiled,
            warnings=self.warnings,
        )
