"""FLUX.1 (diffusers `FluxPipeline`): one to a few steps of flow matching, schnell without guidance.

The same arithmetic, in the same order, as the pipeline's own call; only it can stop anywhere and go on.
"""

from dataclasses import dataclass
from types import ModuleType
from typing import Any, ClassVar

import torch
from diffusers import FluxPipeline, FluxTransformer2DModel
from PIL.Image import Image
from pydantic import Field
from torch import Tensor

from forejudge.generators import flux_split
from forejudge.generators.base import Options, Sampling
from forejudge.generators.flow_matching import FlowSchedule, check_scheduler, shift_by_size
from forejudge.generators.flux_split import FluxInput
from forejudge.generators.packed_tokens import PATCH, Grid, packed_architecture, picture_size, token_grid
from forejudge.generators.prompts import check_prompt
from forejudge.generators.step_state import StepState, for_each
from forejudge.generators.stepwise import StepwiseGenerator, check_without_guidance, weights_fingerprint
from forejudge.noise import noise_batch

GUIDANCE_SCALE = 3.5  # the pipeline's default
_SCHNELL_TEXT_TOKENS, _DEV_TEXT_TOKENS = 256, 512


class FluxOptions(Options):
    """`max_sequence_length` is how many tokens T5 reads, padded where the prompt has fewer: the padding shows.

    None takes the 256 that FLUX.1-schnell was distilled with, and 512 where guidance is embedded (FLUX.1-dev).
    """

    max_sequence_length: int | None = Field(default=None, ge=1, le=512)


@dataclass(frozen=True)
class FluxConditioning:
    """A prompt, encoded, with N = 1: text (1, L, D), pooled text (1, P), guidance (1,) where there is any."""

    sampling: Sampling
    text_NLD: Tensor
    pooled_NP: Tensor
    guidance_N: Tensor | None
    schedule: FlowSchedule
    text_ids_L3: Tensor
    image_ids_T3: Tensor
    grid: Grid


class Flux(StepwiseGenerator):
    """Wraps a `FluxPipeline`, which stays as it is. Raises InvalidRequest where it cannot be cut.

    Latents are drawn and decoded as (N, C, H, W); the transformer sees 2 x 2 of them as one token. A view at a latent
    shows them before the decoder's scaling_factor and shift_factor are applied.
    """

    transformer: FluxTransformer2DModel
    options: FluxOptions
    split: ClassVar[ModuleType] = flux_split
    options_type = FluxOptions

    def __init__(self, pipeline: FluxPipeline, name: str, options: FluxOptions | None = None) -> None:
        super().__init__(pipeline, name, options)
        check_scheduler(pipeline.scheduler)
        # Encoding notes LoRA's scale on the pipeline: one of our own around the same models.
        self.pipeline = FluxPipeline(**pipeline.components)
        self.architecture = packed_architecture(pipeline)
        self.fingerprint = weights_fingerprint((self.transformer.proj_out, "weight"))

    def check(self, prompt: str, sampling: Sampling) -> None:
        """See `Generator.check`. T5 must read it whole. Guidance is refused where the transformer takes none."""
        if not self.transformer.config.guidance_embeds:
            check_without_guidance(sampling, self.name)
        token_grid(self._given, sampling)
        end_mark = 1
        check_prompt(prompt, prompt, self.pipeline.tokenizer_2, 0, self._text_tokens, end_mark)

    @torch.no_grad()
    def encode(self, prompt: str, sampling: Sampling) -> FluxConditioning:
        """See `Generator.encode`. CLIP's pooled text is of the prompt's beginning."""
        self.check(prompt, sampling)
        grid = rows, columns = token_grid(self._given, sampling)
        text_NLD, pooled_NP, text_ids_L3 = self.pipeline.encode_prompt(
            prompt, device=self.device, max_sequence_length=self._text_tokens, lora_scale=sampling.lora_scale
        )
        return FluxConditioning(
            sampling,
            text_NLD.to(self.dtype),
            pooled_NP.to(self.dtype),
            self._guidance(sampling),
            self._schedule(sampling.steps, rows * columns),
            text_ids_L3,
            self.pipeline._prepare_latent_image_ids(1, rows, columns, self.device, text_NLD.dtype),
            grid,
        )

    def _noise(self, conditioning: FluxConditioning, seeds: tuple[int, ...], draw: int) -> Tensor:
        rows, columns = conditioning.grid
        shape = (self.architecture.latent_channels, PATCH * rows, PATCH * columns)
        noise_NCHW = noise_batch(seeds, draw, shape, self.dtype)
        return self._laid_out(conditioning, noise_NCHW.to(self.device))

    def _laid_out(self, conditioning: FluxConditioning, noise_NCHW: Tensor) -> Tensor:
        return self.pipeline._pack_latents(noise_NCHW.to(self.dtype), *noise_NCHW.shape)

    def _inputs(self, state: StepState) -> FluxInput:
        count, conditioning = len(state.seeds), state.conditioning
        guidance_N, timestep = conditioning.guidance_N, conditioning.schedule.timesteps_S[state.step]
        return FluxInput(
            state.noisy,
            for_each(conditioning.text_NLD, count),
            for_each(conditioning.pooled_NP, count),
            timestep.expand(count).to(self.dtype) / 1000,
            None if guidance_N is None else guidance_N.expand(count),
            conditioning.text_ids_L3,
            conditioning.image_ids_T3,
        )

    def _latents(self, state: StepState) -> Tensor:
        conditioning = state.conditioning
        clean_NTC = conditioning.schedule.clean(state.step, state.noisy, state.finished)
        size = picture_size(self.pipeline, conditioning.grid)
        return self.pipeline._unpack_latents(clean_NTC, *size, self.pipeline.vae_scale_factor)

    def _next_noisy(self, state: StepState) -> Tensor:
        return state.conditioning.schedule.following(state.step, state.noisy, state.finished)

    def _pictures(self, latents_NCHW: Tensor, conditioning: FluxConditioning) -> tuple[Image, ...]:
        config = self.autoencoder.config
        scaled_NCHW = (latents_NCHW / config.scaling_factor) + config.shift_factor
        return self._decoded(scaled_NCHW, picture_size(self.pipeline, conditioning.grid))

    @property
    def _text_tokens(self) -> int:
        own = _DEV_TEXT_TOKENS if self.transformer.config.guidance_embeds else _SCHNELL_TEXT_TOKENS
        return self.options.max_sequence_length or own

    def _guidance(self, sampling: Sampling) -> Tensor | None:
        if not self.transformer.config.guidance_embeds:
            return None
        scale = GUIDANCE_SCALE if sampling.guidance_scale is None else sampling.guidance_scale
        return torch.full([1], scale, device=self.device, dtype=torch.float32)

    def _schedule(self, steps: int, tokens: int) -> FlowSchedule:
        config: Any = self.pipeline.scheduler.config
        return FlowSchedule.of(config, steps, shift_by_size(config, tokens), self.device)
