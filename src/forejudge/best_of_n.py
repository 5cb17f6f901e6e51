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
from forejudge.generators import as_generator, find_spec, known_models, load_generator
from forejudge.generators.base import Generator, SamplingParams
from forejudge.policies import SearchPolicy
from forejudge.result import Result, Settings, search_record
from forejudge.search import OnProgress, PromptSession, Search, SearchOptions
from forejudge.verifiers import load_verifier
from forejudge.verifiers.base import Verifier

DEFAULT_MAX_BATCH_SIZE = 32


class BestOfN:
    """A generator and a verifier that reads it, ready to pick the best of N.

    `generator` may be a diffusers pipeline, which stays as it is. `batch_size` is the most candidates drawn at once;
    None draws up to 32, as many as fit in memory. `verifier_step` is the denoising step, counted from 0, in which the
    verifier reads. The last `prompt_cache_size` prompts stay encoded, so that one that comes again is not encoded again:
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
        verifier_step: int = 0,
        prompt_cache_size: int = 16,
        compiled: bool = False,
    ) -> None:
        if batch_size is not None and batch_size < 1:
            raise InvalidRequest(f"batch_size = {batch_size} draws nothing: it must be at least 1")
        if verifier_step < 0:
            raise InvalidRequest(f"judge_step = {verifier_step} is no step: the first is 0")
        generator = generator if isinstance(generator, Generator) else as_generator(generator)
        self.batch_size, self._prompt_cache_size = batch_size, prompt_cache_size
        self.warnings, self.compiled = tuple(verifier.check(generator)), False
        self._eager_models = generator, verifier.at_step(verifier_step)
        self._set_models(*self._eager_models)
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
        verifier_step: int = 0,
        offload: str | None = None,
        compiled: bool = False,
    ) -> "BestOfN":
        """Load both. The verifier defaults to the one that goes with the generator, dtype to what suits the device.

        With `offload` = "text-encoder" the generator's text encoders are on the device only while they encode.

        Raises InvalidRequest for an unknown name, CheckpointError for a folder that is incomplete.
        """
        spec = find_spec(generator)
        if verifier is None and (spec is None or spec.verifier is None):
            known_generators = [name for name, known in known_models().items() if known.verifier]
            raise InvalidRequest(
                f"no verifier is known to go with generator {generator!r}: name one, or use {', '.join(known_generators)}"
            )
        torch_device = resolve_device(device)
        torch_dtype = resolve_dtype(dtype, torch_device)
        return cls(
            load_generator(generator, torch_device, torch_dtype, offload),
            load_verifier(verifier or generator, torch_device, torch_dtype),
            batch_size=batch_size,
            verifier_step=verifier_step,
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
        sampling: SamplingParams | None = None,
        on_progress: OnProgress | None = None,
    ) -> Result:
        """Draw, judge, pick and finish; see `SearchLimits` for n (8 by default), budget_ms, until and max_n.

        `seeds` lists candidate seeds outright; otherwise they follow from `seed`, the prompt and `image_index`.
        `top_k` pictures are finished, the best ones. Raises InvalidRequest for what cannot be served.
        """
        options = SearchOptions.from_arguments(
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
            return self._search(options, on_progress)
        except RuntimeError as error:
            self._fall_back_to_eager(error)
        return self._search(options, on_progress)

    @property
    def max_batch_size(self) -> int:
        """The most candidates that are drawn at once."""
        return self.batch_size or DEFAULT_MAX_BATCH_SIZE

    def _search(self, options: SearchOptions, on_progress: OnProgress | None) -> Result:
        policy = self._policy(options)
        session = PromptSession(self.generator, self.verifier, options.prompt, options.sampling, self._encode)
        output = Search(session, policy, options.top_k).run(options.seeds, on_progress)
        finish_seconds = output.timings["suffix"] + output.timings["decode"]
        self.costs.learn(options.sampling, policy.batch_timings, finish_seconds / len(output.images))
        record = search_record(options, output, self._settings(options), self.generator, self.verifier)
        return Result(record, output.images)

    def _set_models(self, generator: Generator, verifier: Verifier) -> None:
        """From now on; what is known of others is forgotten."""
        self.generator, self.verifier = generator, verifier
        self.costs = CostModel(generator, verifier)
        self._encode = lru_cache(maxsize=self._prompt_cache_size)(generator.encode_without_padding)

    def _compile(self) -> None:
        """As far as it can be done."""
        generator, verifier = self._eager_models
        if problem := compiler_problem(generator.device):
            self.warnings += (f"nothing is compiled, for torch.compile does not work here: {problem}",)
            return
        self._set_models(generator.compiled(), verifier.compiled())
        not_compiled = [f"generator {generator.name}"] if self.generator is generator else []
        not_compiled += [f"verifier {verifier.name}"] if self.verifier is verifier else []
        self.warnings += tuple(f"{name} is not compiled, for it has nothing that can be" for name in not_compiled)
        self.compiled = len(not_compiled) < 2

    def _fall_back_to_eager(self, error: RuntimeError) -> None:
        """After an error of torch.compile; raises any other."""
        message = compile_error(error)
        if not self.compiled or message is None:
            raise error
        self._set_models(*self._eager_models)
        self.compiled = False
        self.warnings += (f"nothing is compiled, for torch.compile failed: {message}",)

    def _policy(self, options: SearchOptions) -> SearchPolicy:
        limits, max_batch_size = options.limits, min(self.max_batch_size, options.limits.cap)
        if limits.budget_ms is None:
            return SearchPolicy(limits, max_batch_size)
        costs = self.costs.measure(options.prompt, options.sampling, max_batch_size, limits.budget_ms / 1000)
        return SearchPolicy(limits, max_batch_size, options.top_k, costs)

    def _settings(self, options: SearchOptions) -> Settings:
        return Settings(
            generator=self.generator.name,
            verifier=self.verifier.name,
            seed=options.seed,
            image_index=options.image_index,
            sampling=options.sampling,
            generator_options=self.generator.options.model_dump(),
            device=str(self.generator.device),
            dtype=dtype_name(self.generator.dtype),
            batch_size=self.batch_size,
            compiled=self.compiled,
            warnings=self.warnings,
        )
