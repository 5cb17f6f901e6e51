"""What generators of one to a few steps share: the way of candidates from noise to pictures, which can stop anywhere.

A generator of an architecture says how its transformer is cut, what a step makes of the transformer's output, and how
latents become pictures.
"""

import hashlib
from abc import abstractmethod
from collections.abc import Iterable
from copy import copy
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, Self, TypeVar

import torch
from PIL.Image import Image
from torch import Tensor, nn

from forejudge.checkpoint import bfloat16_bytes
from forejudge.compiling import compile_layers, compile_submodule
from forejudge.errors import InvalidRequest
from forejudge.generators.base import Generator, Options, SamplingParams
from forejudge.generators.hooks import check_hooks, execution_device, forward_context, stored_weight
from forejudge.generators.latents import Size, decode_latents
from forejudge.generators.split import SplitTransformer
from forejudge.types import NOISE, Candidates, Phase, Stage

if TYPE_CHECKING:
    from forejudge.types import View


# FOLDED: Where candidates of a step-wise generator stand, and what belongs to their prompt.


Shared = TypeVar("Shared", Tensor, Tensor | None)


class Conditioning(Protocol):
    """A prompt, encoded, with all else that its candidates have in common."""

    @property
    def sampling(self) -> SamplingParams: ...


@dataclass(frozen=True)
class StepState:
    """Where N candidates stand: in `step`, after `blocks` blocks, or past them all with the transformer's `output`.

    `latents` are the latents with which the step starts, in the layout that the transformer takes.
    """

    conditioning: Any
    seeds: tuple[int, ...]
    step: int
    latents: Tensor
    hidden: Any | None = None
    blocks: int = 0
    output: Tensor | None = None

    def __getitem__(self, rows: list[int]) -> "StepState":
        return replace(
            self,
            seeds=tuple(self.seeds[row] for row in rows),
            latents=self.latents[rows],
            hidden=None if self.hidden is None else self.hidden[rows],
            output=None if self.output is None else self.output[rows],
        )

    @property
    def model_output(self) -> Tensor:
        """The transformer's output, of a state whose step is at its end."""
        assert self.output is not None
        return self.output


def expand_to_batch(tensor: Shared, batch_size: int) -> Shared:
    """What belongs to a prompt (1, ...) once for each of `batch_size` candidates; None stays None."""
    return None if tensor is None else tensor.expand(batch_size, *tensor.shape[1:]).contiguous()


class StepwiseGenerator(Generator):
    """A transformer that is run once a step, and can be cut after any block of any step."""

    split: ClassVar[SplitTransformer[Any, Any, Any]]
    options_type: ClassVar[type[Options]] = Options
    transformer: Any

    def __init__(self, pipeline: Any, name: str, options: Any = None) -> None:
        """Wrap a pipeline of diffusers, which stays as it is; results call it by `name`.

        Without options they are those of `Options.from_pipeline`. Raises InvalidRequest for a pipeline that cannot be cut.
        """
        check_hooks(pipeline.transformer)
        self.name, self.options = name, options or self.options_type.from_pipeline(pipeline, {})
        self.pipeline = self._original_pipeline = pipeline  # a subclass may call one of its own around the same models
        self.transformer, self.autoencoder = pipeline.transformer, pipeline.vae
        self.device, self.dtype = execution_device(self.transformer), self.transformer.dtype

    def compiled(self) -> Self:
        """See `Generator.compiled`."""
        clone = copy(self)
        clone.transformer = compile_layers(self.transformer)
        # A winner is decoded alone and in one size, mostly: for a fixed shape convolutions are laid out best.
        if hasattr(self.autoencoder, "decoder"):
            clone.autoencoder = compile_submodule(self.autoencoder, "decoder")
        return clone

    @abstractmethod
    def _noise(self, conditioning: Any, seeds: tuple[int, ...], draw: int) -> Tensor:
        """Noise as `StepState.latents` is laid out: draw 0 is what candidates start with, draw s belongs to step s."""

    @abstractmethod
    def _prepare_latents(self, conditioning: Any, noise_NCHW: Tensor) -> Tensor:
        """Standard noise, given from outside, as candidates start with it."""

    @abstractmethod
    def _inputs(self, state: StepState) -> Any:
        """What the transformer takes in a step, as `split.prefix` does."""

    @abstractmethod
    def _pred_original_sample(self, state: StepState) -> Tensor:
        """The clean latents (N, C, H, W) that a finished step predicts, as the decoder takes them."""

    @abstractmethod
    def _next_latents(self, state: StepState) -> Tensor:
        """What the next step starts with, after a finished step."""

    @abstractmethod
    def _images(self, latents_NCHW: Tensor, conditioning: Any) -> tuple[Image, ...]:
        """Latents, decoded."""

    def _decode_latents(self, scaled_NCHW: Tensor, size: Size) -> tuple[Image, ...]:
        """See `decode_latents`; the pipeline is the one that was given, for it may hold hooks."""
        return decode_latents(self.autoencoder, self._original_pipeline, scaled_NCHW, size)

    def start(self, conditioning: Conditioning, seeds: tuple[int, ...], noise_NCHW: Tensor | None = None) -> Candidates:
        """See `Generator.start`; standard noise may be given instead of following from the seeds."""
        if noise_NCHW is None:
            latents = self._noise(conditioning, seeds, draw=0)
        else:
            latents = self._prepare_latents(conditioning, noise_NCHW.to(self.device))
        return Candidates(seeds, NOISE, {}, StepState(conditioning, seeds, 0, latents))

    @torch.no_grad()
    def advance(self, candidates: Candidates, stages: Iterable[Stage]) -> Candidates:
        """See `Generator.advance`."""
        state: StepState = candidates.state
        views: dict[Stage, View] = dict(candidates.views)
        stage = candidates.stage
        for stage in sorted(stages):
            assert stage >= candidates.stage, f"{stage} lies behind {candidates.stage}"
            if stage not in views:
                state = self._advance_to(state, stage)
                views[stage] = self._view(state, stage)
        return Candidates(candidates.seeds, stage, views, state)

    def _advance_to(self, state: StepState, stage: Stage) -> StepState:
        last_step = state.conditioning.sampling.steps - 1
        step = last_step if stage.phase is Phase.IMAGE else stage.step
        if step > last_step:
            raise InvalidRequest(f"{stage} needs more than the {last_step + 1} steps asked for")
        while state.step < step:
            state = self._finish_step(state)
            next_state = replace(state, step=state.step + 1, output=None)
            state = replace(next_state, latents=self._next_latents(state))
        if stage.phase is Phase.PREFIX:
            return self._run_prefix(state, stage.blocks)
        return self._finish_step(state) if stage.phase is not Phase.NOISE else state

    def _run_prefix(self, state: StepState, blocks: int) -> StepState:
        with forward_context(self.transformer, state.conditioning.sampling.lora_scale):
            if state.hidden is None:
                hidden = self.split.prefix(self.transformer, self._inputs(state), blocks)
            else:
                hidden = self.split.run_blocks(self.transformer, state.hidden, state.blocks, blocks)
        return replace(state, hidden=hidden, blocks=blocks)

    def _finish_step(self, state: StepState) -> StepState:
        if state.output is not None:
            return state
        with forward_context(self.transformer, state.conditioning.sampling.lora_scale):
            hidden = state.hidden
            if hidden is None:
                hidden = self.split.prefix(self.transformer, self._inputs(state), 0)
            output = self.split.suffix(self.transformer, hidden, state.blocks)
        return replace(state, hidden=None, blocks=0, output=output)

    def _view(self, state: StepState, stage: Stage) -> "View":
        if stage.phase is Phase.PREFIX:
            assert state.hidden is not None
            return state.hidden.hidden_NTD
        if stage.phase is Phase.NOISE:
            return state.latents
        latents_NCHW = self._pred_original_sample(state)
        if stage.phase is Phase.LATENT:
            return latents_NCHW
        return self._images(latents_NCHW, state.conditioning)


def weights_fingerprint(*weights: tuple[nn.Module, str]) -> str:
    """16 hexadecimal digits of a few small tensors, each named by its module and its name there."""
    digest = hashlib.sha256()
    for module, name in weights:
        digest.update(bfloat16_bytes(stored_weight(module, name)))
    return digest.hexdigest()[:16]


def check_without_guidance(sampling: SamplingParams, name: str) -> None:
    """Raises InvalidRequest where guidance is asked of a generator that has none; scales of 0 and 1 ask for none."""
    if sampling.guidance_scale not in (None, 0, 1):
        raise InvalidRequest(
            f"guidance_scale = {sampling.guidance_scale:g}: {name} draws without guidance, leave it out"
        )
