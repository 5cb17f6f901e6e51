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

from forejudge.checkpoint import rounded_bytes
from forejudge.compiling import with_compiled_layers, with_compiled_part
from forejudge.errors import InvalidRequest
from forejudge.generators.base import Generator, Options, Sampling
from forejudge.generators.hooks import as_in_forward, check_hooks, execution_device, stored_weight
from forejudge.generators.latents import Size, decoded
from forejudge.generators.split import SplitTransformer
from forejudge.types import NOISE, Candidates, Phase, Stage

if TYPE_CHECKING:
    from forejudge.types import View


# FOLDED: Where candidates of a step-wise generator stand, and what belongs to their prompt.


Shared = TypeVar("Shared", Tensor, Tensor | None)


class Conditioning(Protocol):
    """A prompt, encoded, with all else that its candidates have in common."""

    @property
    def sampling(self) -> Sampling: ...


@dataclass(frozen=True)
class StepState:
    """Where N candidates stand: in `step`, after `blocks` blocks, or past them all with the transformer's `output`.

    `noisy` are the latents with which the step starts, in the layout that the transformer takes.
    """

    conditioning: Any
    seeds: tuple[int, ...]
    step: int
    noisy: Tensor
    hidden: Any | None = None
    blocks: int = 0
    output: Tensor | None = None

    def __getitem__(self, rows: list[int]) -> "StepState":
        return replace(
            self,
            seeds=tuple(self.seeds[row] for row in rows),
            noisy=self.noisy[rows],
            hidden=None if self.hidden is None else self.hidden[rows],
            output=None if self.output is None else self.output[rows],
        )

    @property
    def finished(self) -> Tensor:
        """The transformer's output, of a state whose step is at its end."""
        assert self.output is not None
        return self.output


def for_each(of_one: Shared, count: int) -> Shared:
    """What belongs to a prompt (1, ...) once for each of `count` candidates; None stays None."""
    return None if of_one is None else of_one.expand(count, *of_one.shape[1:]).contiguous()


class StepwiseGenerator(Generator):
    """A transformer that is run once a step, and can be cut after any block of any step."""

    split: ClassVar[SplitTransformer[Any, Any, Any]]
    options_type: ClassVar[type[Options]] = Options
    transformer: Any

    def __init__(self, pipeline: Any, name: str, options: Any = None) -> None:
        """Wrap a pipeline of diffusers, which stays as it is; results call it by `name`.

        Without options they are those of `Options.of`. Raises InvalidRequest for a pipeline that cannot be cut.
        """
        check_hooks(pipeline.transformer)
        self.name, self.options = name, options or self.options_type.of(pipeline, {})
        self.pipeline = self._given = pipeline  # a subclass may call one of its own around the same models
        self.transformer, self.autoencoder = pipeline.transformer, pipeline.vae
        self.device, self.dtype = execution_device(self.transformer), self.transformer.dtype

    def compiled(self) -> Self:
        """See `Generator.compiled`."""
        found = copy(self)
        found.transformer = with_compiled_layers(self.transformer)
        # A winner is decoded alone and in one size, mostly: for a fixed shape convolutions are laid out best.
        if hasattr(self.autoencoder, "decoder"):
            found.autoencoder = with_compiled_part(self.autoencoder, "decoder")
        return found

    @abstractmethod
    def _noise(self, conditioning: Any, seeds: tuple[int, ...], draw: int) -> Tensor:
        """Noise as `StepState.noisy` is laid out: draw 0 is what candidates start with, draw s belongs to step s."""

    @abstractmethod
    def _laid_out(self, conditioning: Any, noise_NCHW: Tensor) -> Tensor:
        """Standard noise, given from outside, as candidates start with it."""

    @abstractmethod
    def _inputs(self, state: StepState) -> Any:
        """What the transformer takes in a step, as `split.prefix` does."""

    @abstractmethod
    def _latents(self, state: StepState) -> Tensor:
        """The clean latents (N, C, H, W) that a finished step predicts, as the decoder takes them."""

    @abstractmethod
    def _next_noisy(self, state: StepState) -> Tensor:
        """What the next step starts with, after a finished step."""

    @abstractmethod
    def _pictures(self, latents_NCHW: Tensor, conditioning: Any) -> tuple[Image, ...]:
        """Latents, decoded."""

    def _decoded(self, scaled_NCHW: Tensor, size: Size) -> tuple[Image, ...]:
        """See `decoded`; the pipeline is the one that was given, for it may hold hooks."""
        return decoded(self.autoencoder, self._given, scaled_NCHW, size)

    def start(self, conditioning: Conditioning, seeds: tuple[int, ...], noise_NCHW: Tensor | None = None) -> Candidates:
        """See `Generator.start`; standard noise may be given instead of following from the seeds."""
        if noise_NCHW is None:
            noisy = self._noise(conditioning, seeds, draw=0)
        else:
            noisy = self._laid_out(conditioning, noise_NCHW.to(self.device))
        return Candidates(seeds, NOISE, {}, StepState(conditioning, seeds, 0, noisy))

    @torch.no_grad()
    def advance(self, candidates: Candidates, stages: Iterable[Stage]) -> Candidates:
        """See `Generator.advance`."""
        state: StepState = candidates.state
        views: dict[Stage, View] = dict(candidates.views)
        stage = candidates.stage
        for stage in sorted(stages):
            assert stage >= candidates.stage, f"{stage} lies behind {candidates.stage}"
            if stage not in views:
                state = self._move(state, stage)
                views[stage] = self._view(state, stage)
        return Candidates(candidates.seeds, stage, views, state)

    def _move(self, state: StepState, stage: Stage) -> StepState:
        last_step = state.conditioning.sampling.steps - 1
        step = last_step if stage.phase is Phase.IMAGE else stage.step
        if step > last_step:
            raise InvalidRequest(f"{stage} needs more than the {last_step + 1} steps asked for")
        while state.step < step:
            state = self._finish_step(state)
            following = replace(state, step=state.step + 1, output=None)
            state = replace(following, noisy=self._next_noisy(state))
        if stage.phase is Phase.PREFIX:
            return self._run_prefix(state, stage.blocks)
        return self._finish_step(state) if stage.phase is not Phase.NOISE else state

    def _run_prefix(self, state: StepState, blocks: int) -> StepState:
        with as_in_forward(self.transformer, state.conditioning.sampling.lora_scale):
            if state.hidden is None:
                hidden = self.split.prefix(self.transformer, self._inputs(state), blocks)
            else:
                hidden = self.split.run_blocks(self.transformer, state.hidden, state.blocks, blocks)
        return replace(state, hidden=hidden, blocks=blocks)

    def _finish_step(self, state: StepState) -> StepState:
        if state.output is not None:
            return state
        with as_in_forward(self.transformer, state.conditioning.sampling.lora_scale):
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
            return state.noisy
        latents_NCHW = self._latents(state)
        if stage.phase is Phase.LATENT:
            return latents_NCHW
        return self._pictures(latents_NCHW, state.conditioning)


def weights_fingerprint(*weights: tuple[nn.Module, str]) -> str:
    """16 hexadecimal digits of a few small tensors, each named by its module and its name there."""
    digest = hashlib.sha256()
    for module, name in weights:
        digest.update(rounded_bytes(stored_weight(module, name)))
    return digest.hexdigest()[:16]


def check_without_guidance(sampling: Sampling, name: str) -> None:
    """Raises InvalidRequest where guidance is asked of a generator that has none; scales of 0 and 1 ask for none."""
    if sampling.guidance_scale not in (None, 0, 1):
        raise InvalidRequest(
            f"guidance_scale = {sampling.guidance_scale:g}: {name} draws without guidance, leave it out"
        )
