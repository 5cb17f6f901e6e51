"""Best-of-N: the public call that loads models, runs a search and records its result."""

import logging
import math
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache, partial
from threading import RLock
from typing import Any, TypeVar

import torch

from forejudge.compiling import compile_error, compiler_problem
from forejudge.costs import CostModel
from forejudge.device import dtype_name, resolve_device, resolve_dtype
from forejudge.errors import InvalidRequest
from forejudge.generators import as_generator, known_models, load_architecture, load_generator, resolve_spec
from forejudge.generators.base import Generator
from forejudge.noise import CandidateSeeds
from forejudge.options import ModelOptions, SamplingParams, SearchOptions, check_count, parse_options
from forejudge.policies import AllPolicies
from forejudge.result import Result, Settings, search_record
from forejudge.search import DEFAULT_MAX_BATCH_SIZE, OnProgress, SearchOutput, search
from forejudge.session import PromptSession
from forejudge.types import IMAGE, Phase
from forejudge.verifiers import check_verifier, load_verifier
from forejudge.verifiers.base import Verifier

_LOGGER = logging.getLogger("forejudge")
ActionResult = TypeVar("ActionResult")


class BestOfN:
    """A generator and a verifier that reads it, ready to pick the best of N candidates.

    `generator` may be a diffusers pipeline; it is never changed. `batch_size`, `verifier_step` and `compiled` are
    fields of `ModelOptions`. Models are compiled as they are now, with adapters, offloading and tiling; where
    torch.compile does not work, a warning says why. The last `prompt_cache_size` prompts stay encoded: after a change
    of a pipeline's text encoder make a new BestOfN. Searches of several threads run one after the other; a time budget
    counts from the start of its own search. Raises InvalidRequest for an option out of range, MismatchError if
    the verifier cannot read the generator.
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
        parse_options(ModelOptions, {"batch_size": batch_size, "verifier_step": verifier_step, "compiled": compiled})
        check_count("prompt_cache_size", prompt_cache_size, minimum=0)
        generator = generator if isinstance(generator, Generator) else as_generator(generator)
        if not isinstance(verifier, Verifier):
            raise InvalidRequest(f"verifier = {verifier!r}: expected a Verifier, such as load_verifier returns")
        self.batch_size, self._prompt_cache_size = batch_size, prompt_cache_size
        self.warnings: tuple[str, ...] = ()
        self._logged: set[str] = set()
        self.compiled, self._lock = False, RLock()
        self._warn(*verifier.check(generator))
        self._eager_models = generator, verifier.at_step(verifier_step)
        self._set_models(*self._eager_models)
        if compiled:
            self._compile()

    @classmethod
    def from_pretrained(cls, generator: str = "miniature", verifier: str | None = None, **options: Any) -> "BestOfN":
        """Load a generator and a verifier by name, folder or hub id; `options` are fields of `ModelOptions`.

        The verifier defaults to the one published for the generator. Raises InvalidRequest for an unknown name or
        option, CheckpointError for an incomplete folder.
        """
        return cls.from_options(parse_options(ModelOptions, {"generator": generator, "verifier": verifier, **options}))

    @classmethod
    def from_options(cls, options: ModelOptions, check: Callable[[Generator], object] | None = None) -> "BestOfN":
        """Load the models that `options` name. Raises the same errors as `from_pretrained`.

        `check` may refuse what is asked of the generator: it gets one without weights, before any are read.
        """
        if resolve_spec(options.generator).verifier is None and options.verifier is None:
            known_generators = [name for name, known in known_models().items() if known.verifier]
            raise InvalidRequest(
                f"no verifier is known for generator {options.generator!r}: name one, or use one of "
                f"{', '.join(known_generators)}"
            )
        device = resolve_device(options.device)
        dtype = resolve_dtype(options.dtype, device)
        if check is None:
            architecture = load_architecture(options.generator)
        else:
            without_weights = load_generator(options.generator, torch.device("meta"), dtype)
            check(without_weights)
            architecture = without_weights.architecture
        check_verifier(options.verifier or options.generator, options.generator, architecture)
        return cls(
            load_generator(options.generator, device, dtype, options.offload),
            load_verifier(options.verifier or options.generator, device, dtype),
            batch_size=options.batch_size,
            verifier_step=options.verifier_step,
            compiled=options.compiled,
        )

    def __call__(
        self,
        prompt: str,
        n: int | None = None,
        *,
        options: SearchOptions | None = None,
        on_progress: OnProgress | None = None,
        **overrides: Any,
    ) -> Result:
        """Search the best of N candidates for a prompt and finish it.

        Keyword arguments are fields of `SearchOptions`, such as `seed`, `budget_ms` or `until`; they override those of
        `options`, and None leaves an option as it is. Raises InvalidRequest for a prompt or option that cannot be
        served.
        """
        if not isinstance(prompt, str):
            raise InvalidRequest(f"prompt = {prompt!r}: expected text, not {type(prompt).__name__}")
        if not callable(on_progress) and on_progress is not None:
            raise InvalidRequest(f"on_progress = {on_progress!r}: expected a function of two numbers, or None")
        options = _with_overrides(options, {"n": n, **overrides})
        self._check_verifier(options)
        return self._alone(partial(self._search, prompt, options, on_progress))

    def warm_up(self, prompt: str = "a photo", *, sampling: SamplingParams | None = None) -> None:
        """Compile and measure every batch size now, which the first searches would do otherwise.

        Raises InvalidRequest for a prompt or sampling parameters that cannot be served.
        """
        sampling = (sampling or SamplingParams()).with_defaults(self.generator.defaults)
        self._alone(lambda: self.costs.measure(prompt, sampling, self.max_batch_size, math.inf))

    def __getstate__(self) -> dict[str, Any]:
        """Pickle the models as they were given, without what was compiled, measured or encoded."""
        left_out = ("_lock", "_encode", "costs", "generator", "verifier")
        return {name: value for name, value in self.__dict__.items() if name not in left_out}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Compile again what was compiled; all else is measured and encoded again when it is needed."""
        self.__dict__ |= state | {"_lock": RLock(), "compiled": False}
        self._set_models(*self._eager_models)
        if state["compiled"]:
            self._compile()

    @property
    def max_batch_size(self) -> int:
        """Most candidates processed at once."""
        return self.batch_size or DEFAULT_MAX_BATCH_SIZE

    def _alone(self, action: Callable[[], ActionResult]) -> ActionResult:
        """Run an action while no other thread uses the models, once more if torch.compile fails."""
        with self._lock:
            try:
                return action()
            except RuntimeError as error:
                self._fall_back_to_eager(error)
            return action()

    def _search(self, prompt: str, options: SearchOptions, on_progress: OnProgress | None) -> Result:
        sampling = options.sampling_for(self.generator.defaults)
        seeds = options.seeds or CandidateSeeds(options.seed, prompt, options.image_index, options.cap)
        refines = options.refine_below > 0
        if refines:
            self._check_refining(prompt, sampling)
        measure = partial(self.costs.measure, prompt, sampling, min(self.max_batch_size, len(seeds)), refine=refines)
        policy = AllPolicies.from_options(options, measure, self.verifier.prior)
        diverse = options.diverse if options.top_k > 1 else 0.0
        session = PromptSession(self.generator, self.verifier, prompt, sampling, self._encode, pool=diverse > 0)
        output = search(
            session,
            policy,
            seeds,
            top_k=options.top_k,
            refine_below=options.refine_below,
            diverse=diverse,
            max_batch_size=self.max_batch_size,
            on_progress=on_progress,
        )
        finish_seconds = output.timings["suffix"] + output.timings["decode"]
        num_finished = len(output.images) + len(output.broken)
        if len(output.refined) in (0, len(output.images)):
            refined = bool(output.refined)
            self.costs.learn(sampling, output.batch_timings, finish_seconds / num_finished, refined=refined)
        warnings = [
            *self.verifier.size_warnings(self.generator, sampling),
            *_unknown_words(self.generator, prompt),
            *_broken_images(output, seeds),
        ]
        settings = self._settings(options, sampling, warnings)
        return Result(search_record(prompt, seeds, output, settings, self.generator, self.verifier), output.images)

    def _check_verifier(self, options: SearchOptions) -> None:
        """Refuse options that need what the verifier lacks."""
        for name in ("until", "refine_below", "diverse"):
            if (value := getattr(options, name)) and not self.verifier.calibrated:
                raise InvalidRequest(
                    f"{name} = {value:g} needs a calibrated probability, and verifier {self.verifier.name} is not "
                    "calibrated: leave it out"
                )
        if options.diverse and any(stage.phase != Phase.PREFIX for stage in self.verifier.reads):
            raise InvalidRequest(
                f"diverse = {options.diverse:g} compares hidden states, and verifier {self.verifier.name} reads "
                f"{', '.join(map(str, self.verifier.reads))}: leave it out, or use a verifier of hidden states"
            )
        if options.price is not None and self.verifier.prior is None:
            raise InvalidRequest(
                f"price = {options.price:g} needs a calibrated verifier with a prior, and verifier "
                f"{self.verifier.name} has none: use n instead, or train it again with this version"
            )

    def _check_refining(self, prompt: str, sampling: SamplingParams) -> None:
        """Refuse candidates that are scored after the first step, and one step more than the generator takes."""
        if any(sampling.steps > 1 if stage == IMAGE else stage.step for stage in self.verifier.reads):
            raise InvalidRequest(
                f"refine_below: verifier {self.verifier.name} scores after the first step, from which on the number of "
                "steps is fixed: leave refine_below out, or score in step 0"
            )
        self.generator.check(prompt, sampling.model_copy(update={"steps": sampling.steps + 1}))

    def _settings(self, options: SearchOptions, sampling: SamplingParams, warnings: list[str]) -> Settings:
        """Record the settings of one search, with its own warnings after those of the models; log each warning once."""
        for warning in [each for each in warnings if each not in self._logged]:
            _LOGGER.warning(warning)
        self._logged.update(warnings)
        return Settings(
            generator=self.generator.name,
            verifier=self.verifier.name,
            seed=options.seed if options.seeds is None else None,
            image_index=options.image_index,
            limits=options.limits,
            diverse=options.diverse,
            prior=self.verifier.prior,
            sampling=sampling,
            generator_options=self.generator.options.model_dump(),
            device=str(self.generator.device),
            dtype=dtype_name(self.generator.dtype),
            batch_size=self.batch_size,
            compiled=self.compiled,
            warnings=(*self.warnings, *warnings),
        )

    def _set_models(self, generator: Generator, verifier: Verifier) -> None:
        """Use these models from now on, and forget costs and prompts of others."""
        self.generator, self.verifier = generator, verifier
        self.costs = CostModel(generator, verifier)
        self._encode = lru_cache(maxsize=self._prompt_cache_size)(generator.encode_without_padding)

    def _compile(self) -> None:
        """Compile the models as far as possible, and warn of what stays uncompiled."""
        generator, verifier = self._eager_models
        if problem := compiler_problem(generator.device):
            self._warn(f"torch.compile does not work here ({problem}); continuing without compilation")
            return
        self._set_models(generator.compiled(), verifier.compiled())
        not_compiled = [f"generator {generator.name}"] if self.generator is generator else []
        not_compiled += [f"verifier {verifier.name}"] if self.verifier is verifier else []
        self._warn(*(f"{name} is not compiled: it has no part that can be" for name in not_compiled))
        self.compiled = len(not_compiled) < 2

    def _fall_back_to_eager(self, error: RuntimeError) -> None:
        """Go back to the uncompiled models after an error of torch.compile; raise any other error."""
        message = compile_error(error)
        if not self.compiled or message is None:
            raise error
        self._set_models(*self._eager_models)
        self.compiled = False
        self._warn(f"torch.compile failed ({message}); continuing without compilation")

    def _warn(self, *messages: str) -> None:
        """Log warnings, and add them to the records of results from now on."""
        self.warnings += messages
        for message in messages:
            _LOGGER.warning(message)


def _unknown_words(generator: Generator, prompt: str) -> Iterator[str]:
    if words := generator.unknown_words(prompt):
        yield (
            f"generator {generator.name} was trained without the words {', '.join(words)}: its images and their "
            "probabilities cannot be trusted for this prompt"
        )


def _broken_images(output: SearchOutput, seeds: Sequence[int]) -> Iterator[str]:
    for index in output.broken:
        yield (
            f"the image of candidate {index}, seed {seeds[index]}, has values that are not finite (NaN or infinity): "
            "it is passed over"
        )


def _with_overrides(options: SearchOptions | None, overrides: dict[str, Any]) -> SearchOptions:
    """Replace fields by the overrides that are not None. Raises InvalidRequest for what cannot be an option."""
    if not isinstance(options, SearchOptions | None):
        raise InvalidRequest(f"options = {options!r}: expected SearchOptions, not {type(options).__name__}")
    given = {name: value for name, value in overrides.items() if value is not None}
    if options is not None and not given:
        return options
    return parse_options(SearchOptions, {**(options.model_dump(exclude_unset=True) if options else {}), **given})
