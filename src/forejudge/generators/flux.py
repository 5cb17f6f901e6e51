"""FLUX.1 (diffusers `FluxPipeline`): one to a few flow-matching steps; schnell takes no guidance.

The arithmetic and its order are those of the pipeline's own call. The split is cut out of the block loops of
`FluxTransformer2DModel.forward` (diffusers, transformer_flux.py).
Blocks are counted through both kinds: double-stream first, then single-stream.
The T tokens are those of the image, row by row. P is the width of the pooled text.
"""

from dataclasses import dataclass, replace
from typing import Any

import torch
from diffusers import FluxPipeline, FluxTransformer2DModel
from PIL.Image import Image
from pydantic import Field
from torch import Tensor

from forejudge.generators.base import Architecture, GeneratorOptions, SamplingParams
from forejudge.generators.latents import PATCH_SIZE, image_size, packed_architecture, token_grid
from forejudge.generators.schedules import FlowConditioning, FlowSchedule, check_scheduler, dynamic_shift
from forejudge.generators.split import HiddenState, SplitTransformer
from forejudge.generators.stepwise import (
    StepState,
    StepwiseGenerator,
    check_without_guidance,
    expand_to_batch,
)
from forejudge.generators.text_encoding import check_prompt
from forejudge.noise import noise_batch
from forejudge.types import Grid

GUIDANCE_SCALE = 3.5  # the pipeline's default
_SCHNELL_TEXT_TOKENS, _DEV_TEXT_TOKENS = 256, 512  # that T5 reads


@dataclass(frozen=True)
class FluxInput:
    """Inputs of the transformer: latents in packed patches, with timesteps in [0, 1].

    Guidance is None for a transformer distilled without it. All N share the positions of text and image.
    """

    latents_NTC: Tensor
    text_NLD: Tensor
    pooled_NP: Tensor
    timestep_N: Tensor
    guidance_N: Tensor | None
    text_ids_L3: Tensor
    image_ids_T3: Tensor


@dataclass(frozen=True)
class FluxHidden(HiddenState):
    """Hidden state after some blocks; the text is updated along with the image."""

    text_NLD: Tensor
    time_ND: Tensor  # with guidance and pooled text
    rotary: tuple[Tensor, Tensor]  # cosines and sines of all positions


class FluxSplit(SplitTransformer[FluxTransformer2DModel, FluxInput, FluxHidden]):
    """Split of `FluxTransformer2DModel`."""

    block_lists = ("transformer_blocks", "single_transformer_blocks")

    def architecture(self, transformer: FluxTransformer2DModel) -> Architecture:
        """See `SplitTransformer.architecture`."""
        return packed_architecture(transformer, self.num_blocks(transformer))

    def embed(self, transformer: FluxTransformer2DModel, inputs: FluxInput) -> FluxHidden:
        """See `SplitTransformer.embed`."""
        hidden_NTD = transformer.x_embedder(inputs.latents_NTC)
        timestep_N = inputs.timestep_N.to(hidden_NTD.dtype) * 1000
        if inputs.guidance_N is None:
            time_ND = transformer.time_text_embed(timestep_N, inputs.pooled_NP)
        else:
            guidance_N = inputs.guidance_N.to(hidden_NTD.dtype) * 1000
            time_ND = transformer.time_text_embed(timestep_N, guidance_N, inputs.pooled_NP)
        text_NLD = transformer.context_embedder(inputs.text_NLD)
        rotary = transformer.pos_embed(torch.cat((inputs.text_ids_L3, inputs.image_ids_T3)))
        return FluxHidden(hidden_NTD, text_NLD, time_ND, rotary)

    def run_blocks(
        self, transformer: FluxTransformer2DModel, hidden: FluxHidden, start_block: int, end_block: int
    ) -> FluxHidden:
        """See `SplitTransformer.run_blocks`."""
        hidden_NTD, text_NLD = hidden.hidden_NTD, hidden.text_NLD
        for block in [*transformer.transformer_blocks, *transformer.single_transformer_blocks][start_block:end_block]:
            text_NLD, hidden_NTD = block(hidden_NTD, text_NLD, hidden.time_ND, hidden.rotary)
        return replace(hidden, hidden_NTD=hidden_NTD, text_NLD=text_NLD)

    def head(self, transformer: FluxTransformer2DModel, hidden: FluxHidden) -> Tensor:
        """See `SplitTransformer.head`."""
        output: Tensor = transformer.proj_out(transformer.norm_out(hidden.hidden_NTD, hidden.time_ND))
        return output


class FluxOptions(GeneratorOptions):
    """Arguments of the pipeline's call.

    `max_sequence_length`: tokens that T5 reads. Shorter prompts are padded, and the padding changes the image. None
    means the 256 that FLUX.1-schnell was distilled with, or 512 with embedded guidance (FLUX.1-dev).
    """

    max_sequence_length: int | None = Field(default=None, ge=1, le=512)


@dataclass(frozen=True)
class FluxConditioning(FlowConditioning):
    """Encoded prompt, with N = 1; guidance is None for a transformer without it."""

    sampling: SamplingParams
    text_NLD: Tensor
    pooled_NP: Tensor
    guidance_N: Tensor | None
    schedule: FlowSchedule
    text_ids_L3: Tensor
    image_ids_T3: Tensor
    grid: Grid


_State = StepState[FluxConditioning, FluxHidden]


class Flux(StepwiseGenerator[FluxTransformer2DModel, FluxInput, FluxHidden, FluxConditioning]):
    """FLUX.1 around a `FluxPipeline`, which is not changed.

    Noise and images have latents (N, C, H, W); the transformer takes 2 x 2 of them as one token. A latent view shows
    them before the decoder's scaling_factor and shift_factor.
    """

    options: FluxOptions
    split = FluxSplit()
    options_type = FluxOptions

    def __init__(self, pipeline: FluxPipeline, name: str, options: FluxOptions | None = None) -> None:
        super().__init__(pipeline, name, options)
        check_scheduler(pipeline.scheduler)

    def check(self, prompt: str, sampling: SamplingParams) -> None:
        """See `Generator.check`. T5 must read the whole prompt; guidance is refused if the transformer takes none."""
        if not self.transformer.config.guidance_embeds:
            check_without_guidance(sampling, self.name)
        token_grid(self._original_pipeline, sampling)
        num_eos_tokens = 1
        check_prompt(prompt, prompt, self.pipeline.tokenizer_2, 0, self._max_sequence_length, num_eos_tokens)

    def grid(self, sampling: SamplingParams) -> Grid:
        """See `Generator.grid`."""
        return token_grid(self._original_pipeline, sampling)

    @torch.no_grad()
    def encode(self, prompt: str, sampling: SamplingParams) -> FluxConditioning:
        """See `Generator.encode`. CLIP reads the beginning of the prompt only."""
        self.check(prompt, sampling)
        grid = rows, columns = token_grid(self._original_pipeline, sampling)
        with self._scaled_text_encoders(sampling.lora_scale):
            text_NLD, pooled_NP, text_ids_L3 = self.pipeline.encode_prompt(
                prompt, device=self.device, max_sequence_length=self._max_sequence_length
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

    def _with_sampling(self, conditioning: FluxConditioning, sampling: SamplingParams) -> FluxConditioning:
        rows, columns = conditioning.grid
        return replace(conditioning, sampling=sampling, schedule=self._schedule(sampling.steps, rows * columns))

    def _noise(self, conditioning: FluxConditioning, seeds: tuple[int, ...], draw: int) -> Tensor:
        rows, columns = conditioning.grid
        shape = (self.architecture.latent_channels, PATCH_SIZE * rows, PATCH_SIZE * columns)
        noise_NCHW = noise_batch(seeds, draw, shape, self.dtype)
        return self._prepare_latents(conditioning, noise_NCHW.to(self.device))

    def _prepare_latents(self, conditioning: FluxConditioning, noise_NCHW: Tensor) -> Tensor:
        return self.pipeline._pack_latents(noise_NCHW.to(self.dtype), *noise_NCHW.shape)

    def _inputs(self, state: _State) -> FluxInput:
        batch_size, conditioning = len(state.seeds), state.conditioning
        guidance_N, timestep = conditioning.guidance_N, conditioning.schedule.timesteps_S[state.step]
        return FluxInput(
            state.latents,
            expand_to_batch(conditioning.text_NLD, batch_size),
            expand_to_batch(conditioning.pooled_NP, batch_size),
            timestep.expand(batch_size).to(self.dtype) / 1000,
            None if guidance_N is None else guidance_N.expand(batch_size),
            conditioning.text_ids_L3,
            conditioning.image_ids_T3,
        )

    def _pred_original_sample(self, state: _State) -> Tensor:
        conditioning = state.conditioning
        pred_original_sample_NTC = conditioning.schedule.pred_original_sample(
            state.step, state.latents, state.model_output
        )
        size = image_size(self.pipeline, conditioning.grid)
        return self.pipeline._unpack_latents(pred_original_sample_NTC, *size, self.pipeline.vae_scale_factor)

    def _next_latents(self, state: _State) -> Tensor:
        return state.conditioning.schedule.next_latents(state.step, state.latents, state.model_output)

    def _images(self, latents_NCHW: Tensor, conditioning: FluxConditioning) -> tuple[Image | None, ...]:
        config = self.autoencoder.config
        scaled_NCHW = (latents_NCHW / config.scaling_factor) + config.shift_factor
        return self._decode_latents(scaled_NCHW, image_size(self.pipeline, conditioning.grid))

    @property
    def _max_sequence_length(self) -> int:
        default_length = _DEV_TEXT_TOKENS if self.transformer.config.guidance_embeds else _SCHNELL_TEXT_TOKENS
        return self.options.max_sequence_length or default_length

    def _guidance(self, sampling: SamplingParams) -> Tensor | None:
        if not self.transformer.config.guidance_embeds:
            return None
        scale = GUIDANCE_SCALE if sampling.guidance_scale is None else sampling.guidance_scale
        return torch.full([1], scale, device=self.device, dtype=torch.float32)

    def _schedule(self, steps: int, tokens: int) -> FlowSchedule:
        config: Any = self.pipeline.scheduler.config
        return FlowSchedule.from_config(config, steps, dynamic_shift(config, tokens), self.device)
