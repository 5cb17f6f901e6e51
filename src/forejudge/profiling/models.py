"""Models ready to be profiled: every stage of their searches as a workload made of the real calls, with its cost."""

from collections.abc import Callable, Iterable, Mapping
from copy import copy
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import Any, Self

import torch
from torch import Tensor, nn

from forejudge.compiling import compiler_problem
from forejudge.errors import InvalidRequest
from forejudge.generators import load_generator
from forejudge.generators.base import Architecture, Generator, SamplingParams
from forejudge.profiling.figures import DECODE, ENCODE, LATER_STEPS, PREFIX, SUFFIX, scoring_stage
from forejudge.profiling.measure import StageCost, count_cost
from forejudge.types import IMAGE, NOISE, Candidates, Grid, Phase, Stage, latent_stage, prefix_stage
from forejudge.verifiers import load_verifier
from forejudge.verifiers.inputs import VerifierInput
from forejudge.verifiers.language_model import LanguageModelVerifier

PROMPT = "a photo of a red circle left of a blue square"


@dataclass(frozen=True)
class ProfiledModels:
    """A generator, and verifiers around a language model keyed by kind of input: hidden, latent, clip or preview.

    Where `padded`, prompts are encoded as the pipeline's own call encodes them, with padding and the instruction.
    """

    generator: Generator[Any]
    verifiers: Mapping[str, LanguageModelVerifier]
    prompt: str
    sampling: SamplingParams
    padded: bool = False
    eager: "ProfiledModels | None" = None  # the models before they were compiled

    @property
    def eager_or_self(self) -> "ProfiledModels":
        """The models before they were compiled, or themselves."""
        return self.eager or self

    def compiled(self) -> Self:
        """Return the models compiled. Raises InvalidRequest where torch.compile does not work."""
        if problem := compiler_problem(self.generator.device):
            raise InvalidRequest(f"torch.compile does not work here ({problem}): leave out --compile")
        verifiers = {kind: verifier.compiled() for kind, verifier in self.verifiers.items()}
        return replace(self, generator=self.generator.compiled(), verifiers=verifiers, eager=self)

    @property
    def num_prefix_blocks(self) -> int:
        """Blocks before the hidden-state verifier reads; without one, all blocks."""
        reads = [stage for verifier in self.verifiers.values() for stage in verifier.reads]
        blocks = [stage.blocks for stage in reads if stage.phase is Phase.PREFIX]
        return blocks[0] if blocks else self.generator.architecture.num_blocks

    @property
    def generation_stages(self) -> tuple[str, ...]:
        """Stages from noise to images, in order."""
        return tuple(self._generation_bounds)

    @property
    def stages(self) -> tuple[str, ...]:
        """All stages of a search, those of every verifier included."""
        scoring: list[str] = []
        for kind in self.verifiers:
            scoring += [*self.input_stages(kind), scoring_stage(kind)]
        return (ENCODE, *self.generation_stages, *scoring)

    def input_stages(self, kind: str) -> tuple[str, ...]:
        """Return the stage of a verifier input that has models of its own, which is named by its kind."""
        return (kind,) if self.verifiers[kind].verifier_input.modules() else ()

    @cached_property
    def conditioning(self) -> Any:
        """The encoded prompt. Raises InvalidRequest for a size that the generator does not support."""
        return self._encode()

    @cached_property
    def image_size(self) -> tuple[int, int]:
        """Height and width of the images, in pixels."""
        width, height = self._generate(1, IMAGE).images[0].size
        return height, width

    @cached_property
    def costs(self) -> dict[str, StageCost]:
        """Cost of every stage of a search for one candidate, counted on the eager models as they run."""
        return self.eager_or_self._count(self.stages)

    @cached_property
    def padded_costs(self) -> dict[str, StageCost]:
        """Costs with all that the pipeline's own call reads: the instruction for each prompt, and padding."""
        text_stages = self.stages[: self.stages.index(DECODE)]
        return self.costs | replace(self.eager_or_self, padded=True)._count(text_stages)

    def workload(self, stage: str, batch: int) -> Callable[[], object]:
        """Return a repeatable call that runs one of `stages` for `batch` candidates; what precedes it is done here."""
        if stage == ENCODE:
            return self._encode
        if stage == PREFIX:
            return partial(self._generate, batch, self._generation_bounds[stage][1])
        if stage in self.generation_stages:
            begin, end = self._generation_bounds[stage]
            return partial(self.generator.advance, self._generate(batch, begin).without_views(), [end])
        if stage in self.verifiers:
            verifier_input = self.verifiers[stage].verifier_input
            return partial(verifier_input.tokens, self._generate(batch, verifier_input.stage))
        return self._scoring(next(kind for kind in self.verifiers if scoring_stage(kind) == stage), batch)

    def weight_bytes(self, kind: str) -> int:
        """Return the bytes of all weights that a search with one of the verifiers keeps on the device."""
        modules = [*self.generator.modules().values(), *_verifier_modules(self.verifiers[kind])]
        return sum(weight.nbytes for module in modules for weight in module.parameters())

    @property
    def _generation_bounds(self) -> dict[str, tuple[Stage, Stage]]:
        """First and last point of each generation stage."""
        cut, first, last = prefix_stage(self.num_prefix_blocks), latent_stage(), latent_stage(self.sampling.steps - 1)
        bounds = {PREFIX: (NOISE, cut), SUFFIX: (cut, first)}
        later_steps = {LATER_STEPS: (first, last)} if first < last else {}
        return {**bounds, **later_steps, DECODE: (last, IMAGE)}

    def _encode(self) -> Any:
        encode = self.generator.encode if self.padded else self.generator.encode_without_padding
        return encode(self.prompt, self.sampling)

    def _generate(self, batch: int, stage: Stage) -> Candidates:
        return self.generator.advance(self.generator.start(self.conditioning, tuple(range(batch))), [stage])

    def _scoring(self, kind: str, batch: int) -> Callable[[], object]:
        verifier = copy(self.verifiers[kind])
        (stage,) = verifier.reads
        candidates = self._generate(batch, stage)
        verifier.verifier_input = _PrecomputedInput(verifier.verifier_input, verifier.verifier_input.tokens(candidates))
        return partial(verifier.logprobs, self.prompt, candidates)

    def _count(self, stages: Iterable[str]) -> dict[str, StageCost]:
        _ = self.conditioning  # a cached instruction is read before anything is counted
        modules = list(self.generator.modules().values())
        modules += [module for verifier in self.verifiers.values() for module in _verifier_modules(verifier)]
        return {stage: count_cost(self.workload(stage, 1), modules) for stage in stages}


def _verifier_modules(verifier: LanguageModelVerifier) -> list[nn.Module]:
    return [verifier.model, *verifier.verifier_input.modules()]


class _PrecomputedInput(VerifierInput):
    """A verifier input whose tokens are computed already."""

    def __init__(self, verifier_input: VerifierInput, tokens_NTD: Tensor) -> None:
        self.name, self.stage = verifier_input.name, verifier_input.stage
        self._verifier_input, self._tokens_NTD = verifier_input, tokens_NTD

    def width(self, architecture: Architecture) -> int:
        """See `VerifierInput.width`."""
        return self._verifier_input.width(architecture)

    def tokens(self, candidates: Candidates) -> Tensor:
        """See `VerifierInput.tokens`."""
        return self._tokens_NTD

    def grid(self, candidates: Candidates) -> Grid | None:
        """See `VerifierInput.grid`."""
        return self._verifier_input.grid(candidates)


def load_profiled_models(
    generator: str, verifiers: Iterable[str], resolution: int | None, device: torch.device, dtype: torch.dtype
) -> ProfiledModels:
    """Load any generator, and verifiers that read it, as `load_generator` and `load_verifier` name them.

    `resolution` is the side of the images in pixels (default: the generator's own). Raises InvalidRequest for a
    verifier without a language model or two verifiers of one kind, and the errors of loading.
    """
    if resolution:  # refused before any weights are read
        without_weights = load_generator(generator, torch.device("meta"), dtype)
        without_weights.check(PROMPT, with_resolution(without_weights.defaults, resolution))
    loaded = load_generator(generator, device, dtype)
    by_kind: dict[str, LanguageModelVerifier] = {}
    for name in verifiers:
        verifier = load_verifier(name, device, dtype)
        if not isinstance(verifier, LanguageModelVerifier):
            raise InvalidRequest(f"verifier {name} has no language model: profile one that has")
        kind = verifier.config.reads.partition(":")[0]
        if kind in by_kind:
            raise InvalidRequest(f"verifiers {by_kind[kind].name} and {name} both read {kind}: leave one out")
        verifier.check(loaded)
        by_kind[kind] = verifier
    return ProfiledModels(loaded, by_kind, PROMPT, with_resolution(loaded.defaults, resolution))


def with_resolution(sampling: SamplingParams, resolution: int | None) -> SamplingParams:
    """Return sampling parameters for square images of a resolution; None keeps their size."""
    return sampling.model_copy(update={"height": resolution, "width": resolution} if resolution else {})
