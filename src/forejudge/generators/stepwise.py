"""Generators of one to a few steps: the way of candidates from noise to images, which can stop at any stage.

An architecture says how its transformer is split, what a step makes of the transformer's output, and how latents become
images. This file does the rest.
"""

from abc import abstractmethod
from collections.abc import Iterable
from contextlib import AbstractContextManager
from copy import copy
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar, Generic, Protocol, Self, TypeVar

import torch
from PIL.Image import Image
from torch import Tensor, nn

from forejudge.compiling import compile_layers, compile_submodule, unwrap_compiled
from forejudge.errors import InvalidRequest
from forejudge.generators.base import Generator, GeneratorOptions, SamplingParams
from forejudge.generators.digest import ModelDigests, pipeline_digest
from forejudge.generators.hooks import check_hooks, execution_device, forward_context, scaled_adapters
from forejudge.generators.latents import Size, decode_latents
from forejudge.generators.split import HiddenT, InputsT, SplitTransformer, TransformerT
from forejudge.types import NOISE, Candidates, Phase, Stage, latent_stage

if TYPE_CHECKING:
    from forejudge.types import View


class Conditioning(Protocol):
    """An encoded prompt with everything else that its candidates share."""

    @property
    def sampling(self) -> SamplingParams: ...

    @property
    def timesteps(self) -> Tensor:
        """Times at which the steps start, and possibly the end of the last one."""

    @property
    def text_NLD(self) -> Tensor:
        """Text states as the transformer takes them, with N = 1."""

    @property
    def mask_NL(self) -> Tensor | None:
        """1 for text tokens and 0 for padding; None where every token counts."""


ConditioningT = TypeVar("ConditioningT", bound=Conditioning)


@dataclass(frozen=True)
class StepState(Generic[ConditioningT, HiddenT]):
    """Position of N candidates in `step`: after `blocks` blocks, or past all of them with the transformer's `output`.

    `latents` are those at the start of the step, in the layout that the transformer takes.
    """

    conditioning: ConditioningT
    seeds: tuple[int, ...]
    step: int
    latents: Tensor
    hidden: HiddenT | None = None
    blocks: int = 0
    output: Tensor | None = None

    def __getitem__(self, rows: list[int]) -> Self:
        return replace(
            self,
            seeds=tuple(self.seeds[row] for row in rows),
            latents=self.latents[rows],
            hidden=None if self.hidden is None else self.hidden[rows],
            output=None if self.output is None else self.output[rows],
        )

    @property
    def model_output(self) -> Tensor:
        """The transformer's output, once the step is finished."""
        assert self.output is not None
        return self.output


class StepwiseGenerator(Generator[ConditioningT], Generic[TransformerT, InputsT, HiddenT, ConditioningT]):
    """A generator that runs its transformer once per step and can stop after any block of any step.

    Type parameters: the transformer, its split's inputs and hidden state, and the encoded prompt.
    """

    split: SplitTransformer[TransformerT, InputsT, HiddenT]  # set by the subclass, for all its instances
    options_type: ClassVar[type[GeneratorOptions]] = GeneratorOptions
    optional_components: ClassVar[frozenset[str]] = frozenset()  # of those that the pipeline's constructor asks for
    transformer: TransformerT

    def __init__(self, pipeline: Any, name: str, options: GeneratorOptions | None = None) -> None:
        """Wrap a diffusers pipeline without changing it; results call it `name`.

        `options` default to `GeneratorOptions.from_pipeline`. Raises InvalidRequest if its transformer cannot be split.
        """
        self.transformer = unwrap_compiled(pipeline.transformer)
        check_hooks(self.transformer)
        self.name, self.options = name, options or self.options_type.from_pipeline(pipeline, {})
        self.pipeline = self._original_pipeline = pipeline  # a subclass may call its own copy around the same models
        self.autoencoder = unwrap_compiled(pipeline.vae)
        self.device, self.dtype = execution_device(self.transformer), pipeline.transformer.dtype
        self.architecture = self.split.architecture(self.transformer)
        self.known_digests: ModelDigests = {}

    @property
    def fingerprint(self) -> str:  # type: ignore[override]
        """See `Generator.fingerprint`. The first time takes as long as hashing weights that no file stands for."""
        return pipeline_digest(self._original_pipeline, self.options, self.known_digests)

    def compiled(self) -> Self:
        """See `Generator.compiled`."""
        clone = copy(self)
        clone.transformer = compile_layers(self.transformer)
        # A winner is usually decoded alone and in one size; convolutions are fastest compiled for a fixed shape.
        if hasattr(self.autoencoder, "decoder"):
            clone.autoencoder = compile_submodule(self.autoencoder, "decoder")
        return clone

    def modules(self) -> dict[str, nn.Module]:
        """See `Generator.modules`."""
        return {name: part for name, part in self.pipeline.components.items() if isinstance(part, nn.Module)}

    def text_states(self, conditioning: ConditioningT) -> Tensor:
        """See `Generator.text_states`."""
        text_LD, mask_NL = conditioning.text_NLD[0], conditioning.mask_NL
        if mask_NL is None or mask_NL.is_meta:  # FLOPs are counted without values
            return text_LD
        return text_LD[mask_NL[0].bool()]

    def start(
        self, conditioning: ConditioningT, seeds: tuple[int, ...], noise_NCHW: Tensor | None = None
    ) -> Candidates:
        """See `Generator.start`; `noise_NCHW` replaces the standard noise that follows from the seeds."""
        if noise_NCHW is None:
            latents = self._noise(conditioning, seeds, draw=0)
        else:
            latents = self._prepare_latents(conditioning, noise_NCHW.to(self.device))
        state: StepState[ConditioningT, HiddenT] = StepState(conditioning, seeds, 0, latents)
        grid, text_LD = self.grid(conditioning.sampling), self.text_states(conditioning)
        return Candidates(seeds, NOISE, {}, state, grid, text_LD)

    @torch.no_grad()
    def advance(self, candidates: Candidates, stages: Iterable[Stage]) -> Candidates:
        """See `Generator.advance`."""
        state: StepState[ConditioningT, HiddenT] = candidates.state
        views: dict[Stage, View] = dict(candidates.views)
        stage = candidates.stage
        for stage in sorted(stages):
            assert stage >= candidates.stage, f"{stage} lies behind {candidates.stage}"
            if stage not in views:
                state = self._advance_to(state, stage)
                views[stage] = self._view(state, stage)
        return replace(candidates, stage=stage, views=views, state=state)

    def with_steps(self, candidates: Candidates, steps: int) -> Candidates:
        """See `Generator.with_steps`."""
        state: StepState[ConditioningT, HiddenT] = candidates.state
        before = state.conditioning
        after = self._with_sampling(before, before.sampling.model_copy(update={"steps": steps}))
        if state.step > 0 or after.timesteps[0] != before.timesteps[0]:
            raise InvalidRequest(
                f"{self.name} cannot go from {before.sampling.steps} to {steps} steps in step {state.step}: only the "
                "first step may be the same for both"
            )
        stage = min(candidates.stage, latent_stage())
        return replace(candidates, stage=stage, views={}, state=replace(state, conditioning=after))

    @abstractmethod
    def _with_sampling(self, conditioning: ConditioningT, sampling: SamplingParams) -> ConditioningT:
        """Return an encoded prompt for sampling parameters that differ in their number of steps."""

    @abstractmethod
    def _noise(self, conditioning: ConditioningT, seeds: tuple[int, ...], draw: int) -> Tensor:
        """Make noise in the layout of `StepState.latents`: draw 0 is the initial one, draw s belongs to step s."""

    @abstractmethod
    def _prepare_latents(self, conditioning: ConditioningT, noise_NCHW: Tensor) -> Tensor:
        """Turn standard noise from outside into initial latents."""

    @abstractmethod
    def _inputs(self, state: StepState[ConditioningT, HiddenT]) -> InputsT:
        """Gather the transformer's inputs in a step, as `split.prefix` takes them."""

    @abstractmethod
    def _pred_original_sample(self, state: StepState[ConditioningT, HiddenT]) -> Tensor:
        """Return the clean latents (N, C, H, W) that a finished step predicts, as the pipeline returns them."""

    @abstractmethod
    def _next_latents(self, state: StepState[ConditioningT, HiddenT]) -> Tensor:
        """Return the latents at the start of the next step, after a finished step."""

    @abstractmethod
    def _images(self, latents_NCHW: Tensor, conditioning: ConditioningT) -> tuple[Image | None, ...]:
        """Decode clean latents; None stands for an image that is not finite."""

    def _scaled_text_encoders(self, lora_scale: float) -> AbstractContextManager[None]:
        """Scale the adapters of all text encoders while a prompt is encoded."""
        encoders = [module for name, module in self.modules().items() if name.startswith("text_encoder")]
        return scaled_adapters(encoders, lora_scale)

    def _decode_latents(self, scaled_NCHW: Tensor, size: Size) -> tuple[Image | None, ...]:
        """Decode with the pipeline that was passed in, since offloading hooks are its own."""
        return decode_latents(self.autoencoder, self._original_pipeline, scaled_NCHW, size)

    def _advance_to(self, state: StepState[ConditioningT, HiddenT], stage: Stage) -> StepState[ConditioningT, HiddenT]:
        last_step = state.conditioning.sampling.steps - 1
        step = last_step if stage.phase is Phase.IMAGE else stage.step
        if step > last_step:
            raise InvalidRequest(
                f"{stage} needs more than the {last_step + 1} steps asked for: raise --steps, or read an earlier step"
            )
        while state.step < step:
            state = self._finish_step(state)
            state = replace(state, step=state.step + 1, output=None, latents=self._next_latents(state))
        if stage.phase is Phase.PREFIX:
            return self._run_prefix(state, stage.blocks)
        return self._finish_step(state) if stage.phase is not Phase.NOISE else state

    def _run_prefix(self, state: StepState[ConditioningT, HiddenT], blocks: int) -> StepState[ConditioningT, HiddenT]:
        with forward_context(self.transformer, state.conditioning.sampling.lora_scale):
            if state.hidden is None:
                hidden = self.split.prefix(self.transformer, self._inputs(state), blocks)
            else:
                hidden = self.split.run_blocks(self.transformer, state.hidden, state.blocks, blocks)
        return replace(state, hidden=hidden, blocks=blocks)

    def _finish_step(self, state: StepState[ConditioningT, HiddenT]) -> StepState[ConditioningT, HiddenT]:
        if state.output is not None:
            return state
        with forward_context(self.transformer, state.conditioning.sampling.lora_scale):
            hidden = state.hidden
            if hidden is None:
                hidden = self.split.prefix(self.transformer, self._inputs(state), 0)
            output = self.split.suffix(self.transformer, hidden, state.blocks)
        return replace(state, hidden=None, blocks=0, output=output)

    def _view(self, state: StepState[ConditioningT, HiddenT], stage: Stage) -> "View":
        if stage.phase is Phase.PREFIX:
            assert state.hidden is not None
            return state.hidden.hidden_NTD
        if stage.phase is Phase.NOISE:
            return state.latents
        latents_NCHW = self._pred_original_sample(state)
        if stage.phase is Phase.LATENT:
            return latents_NCHW
        return self._images(latents_NCHW, state.conditioning)


OptionalTensor = TypeVar("OptionalTensor", Tensor, Tensor | None)


def expand_to_batch(tensor: OptionalTensor, batch_size: int) -> OptionalTensor:
    """Repeat a prompt's tensor (1, ...) for each of `batch_size` candidates; None stays None."""
    return None if tensor is None else tensor.expand(batch_size, *tensor.shape[1:]).contiguous()


def check_without_guidance(sampling: SamplingParams, name: str) -> None:
    """Refuse guidance for a generator that has none, with InvalidRequest; scales of 0 and 1 mean no guidance."""
    if sampling.guidance_scale not in (None, 0, 1):
        raise InvalidRequest(
            f"guidance_scale = {sampling.guidance_scale:g}: {name} generates without guidance, leave it out"
        )
