"""Stable Diffusion 3 and 3.5 (diffusers `StableDiffusion3Pipeline`): a few flow-matching steps without guidance.

The arithmetic and its order are those of the pipeline's own call. The split is cut out of the block loop of
`SD3Transformer2DModel.forward` (diffusers, transformer_sd3.py).
P is the width of the pooled text.
"""

from dataclasses import dataclass, replace
from typing import Any

import torch
from diffusers import SD3Transformer2DModel, StableDiffusion3Pipeline
from PIL.Image import Image
from pydantic import Field
from torch import Tensor

from forejudge.errors import InvalidRequest
from forejudge.generators.base import Architecture, GeneratorOptions, SamplingParams
from forejudge.generators.latents import Size, patched_architecture, resolve_image_sizes, unpatchify
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


@dataclass(frozen=True)
class SD3Input:
    """Inputs of the transformer."""

    latents_NCHW: Tensor
    text_NLD: Tensor
    pooled_NP: Tensor
    timestep_N: Tensor


@dataclass(frozen=True)
class SD3Hidden(HiddenState):
    """Hidden state after some blocks; the text is updated along with the image."""

    text_NLD: Tensor | None  # None after the last block, which drops the text
    time_ND: Tensor  # with pooled text
    grid: tuple[int, int]  # rows and columns of tokens


class StableDiffusion3Split(SplitTransformer[SD3Transformer2DModel, SD3Input, SD3Hidden]):
    """Split of `SD3Transformer2DModel`."""

    def architecture(self, transformer: SD3Transformer2DModel) -> Architecture:
        """See `SplitTransformer.architecture`."""
        return patched_architecture(transformer, self.num_blocks(transformer), transformer.config.joint_attention_dim)

    def embed(self, transformer: SD3Transformer2DModel, inputs: SD3Input) -> SD3Hidden:
        """See `SplitTransformer.embed`."""
        patch_size = transformer.config.patch_size
        height, width = inputs.latents_NCHW.shape[-2:]
        return SD3Hidden(
            transformer.pos_embed(inputs.latents_NCHW).contiguous(),
            transformer.context_embedder(inputs.text_NLD),
            transformer.time_text_embed(inputs.timestep_N, inputs.pooled_NP),
            (height // patch_size, width // patch_size),
        )

    def run_blocks(
        self, transformer: SD3Transformer2DModel, hidden: SD3Hidden, start_block: int, end_block: int
    ) -> SD3Hidden:
        """See `SplitTransformer.run_blocks`."""
        hidden_NTD, text_NLD = hidden.hidden_NTD, hidden.text_NLD
        for block in transformer.transformer_blocks[start_block:end_block]:
            text_NLD, hidden_NTD = block(hidden_NTD, text_NLD, hidden.time_ND)
        return replace(hidden, hidden_NTD=hidden_NTD, text_NLD=text_NLD)

    def head(self, transformer: SD3Transformer2DModel, hidden: SD3Hidden) -> Tensor:
        """See `SplitTransformer.head`."""
        patches_NTE = transformer.proj_out(transformer.norm_out(hidden.hidden_NTD, hidden.time_ND))
        return unpatchify(patches_NTE, hidden.grid, transformer.config.patch_size)


class StableDiffusion3Options(GeneratorOptions):
    """Arguments of the pipeline's call.

    `max_sequence_length`: tokens that T5 reads. Shorter prompts are padded, and the padding changes the image.
    """

    max_sequence_length: int = Field(default=256, ge=1, le=512)


@dataclass(frozen=True)
class StableDiffusion3Conditioning(FlowConditioning):
    """Encoded prompt, with N = 1: CLIP's tokens before T5's, and CLIP's pooled text. `size` is in pixels."""

    sampling: SamplingParams
    text_NLD: Tensor
    pooled_NP: Tensor
    schedule: FlowSchedule
    size: Size


_State = StepState[StableDiffusion3Conditioning, SD3Hidden]


class StableDiffusion3(StepwiseGenerator[SD3Transformer2DModel, SD3Input, SD3Hidden, StableDiffusion3Conditioning]):
    """Stable Diffusion 3 around a `StableDiffusion3Pipeline`, which is not changed.

    A pipeline does not say whether its transformer was distilled to work without guidance, as SD3.5 turbo's was. A
    latent view shows the latents before the decoder's scaling_factor and shift_factor.
    """

    options: StableDiffusion3Options
    split = StableDiffusion3Split()
    options_type = StableDiffusion3Options
    optional_components = frozenset({"text_encoder_3", "tokenizer_3"})

    def __init__(
        self, pipeline: StableDiffusion3Pipeline, name: str, options: StableDiffusion3Options | None = None
    ) -> None:
        super().__init__(pipeline, name, options)
        check_scheduler(pipeline.scheduler)

    def check(self, prompt: str, sampling: SamplingParams) -> None:
        """See `Generator.check`. T5, or CLIP if there is no T5, must read the whole prompt; guidance is refused."""
        check_without_guidance(sampling, self.name)
        self._size(sampling)
        pipeline, num_eos_tokens = self.pipeline, 1
        tokenizer, max_tokens = pipeline.tokenizer_3, self.options.max_sequence_length
        if tokenizer is None:
            tokenizer, max_tokens = pipeline.tokenizer, pipeline.tokenizer_max_length
        check_prompt(prompt, prompt, tokenizer, 0, max_tokens, num_eos_tokens)

    def grid(self, sampling: SamplingParams) -> Grid:
        """See `Generator.grid`."""
        height, width = self._size(sampling)
        return height // self._token_pixels, width // self._token_pixels

    @torch.no_grad()
    def encode(self, prompt: str, sampling: SamplingParams) -> StableDiffusion3Conditioning:
        """See `Generator.encode`. If there is a T5, the two CLIPs read the beginning of the prompt only."""
        self.check(prompt, sampling)
        size = self._size(sampling)
        with self._scaled_text_encoders(sampling.lora_scale):
            text_NLD, _, pooled_NP, _ = self.pipeline.encode_prompt(
                prompt,
                None,
                None,
                device=self.device,
                do_classifier_free_guidance=False,
                max_sequence_length=self.options.max_sequence_length,
            )
        schedule = self._schedule(sampling.steps, size)
        return StableDiffusion3Conditioning(sampling, text_NLD.to(self.dtype), pooled_NP.to(self.dtype), schedule, size)

    def _with_sampling(
        self, conditioning: StableDiffusion3Conditioning, sampling: SamplingParams
    ) -> StableDiffusion3Conditioning:
        schedule = self._schedule(sampling.steps, conditioning.size)
        return replace(conditioning, sampling=sampling, schedule=schedule)

    def _noise(self, conditioning: StableDiffusion3Conditioning, seeds: tuple[int, ...], draw: int) -> Tensor:
        factor, (height, width) = self.pipeline.vae_scale_factor, conditioning.size
        shape = (self.architecture.latent_channels, height // factor, width // factor)
        return noise_batch(seeds, draw, shape, self.dtype).to(self.device)

    def _prepare_latents(self, conditioning: StableDiffusion3Conditioning, noise_NCHW: Tensor) -> Tensor:
        return noise_NCHW.to(self.dtype)

    def _inputs(self, state: _State) -> SD3Input:
        batch_size, conditioning = len(state.seeds), state.conditioning
        return SD3Input(
            state.latents,
            expand_to_batch(conditioning.text_NLD, batch_size),
            expand_to_batch(conditioning.pooled_NP, batch_size),
            conditioning.schedule.timesteps_S[state.step].expand(batch_size),
        )

    def _pred_original_sample(self, state: _State) -> Tensor:
        pred_original_sample_NCHW: Tensor = state.conditioning.schedule.pred_original_sample(
            state.step, state.latents, state.model_output
        )
        return pred_original_sample_NCHW

    def _next_latents(self, state: _State) -> Tensor:
        latents_NCHW: Tensor = state.conditioning.schedule.next_latents(state.step, state.latents, state.model_output)
        return latents_NCHW

    def _images(self, latents_NCHW: Tensor, conditioning: StableDiffusion3Conditioning) -> tuple[Image | None, ...]:
        config = self.autoencoder.config
        return self._decode_latents((latents_NCHW / config.scaling_factor) + config.shift_factor, conditioning.size)

    @property
    def _token_pixels(self) -> int:
        factor: int = self.pipeline.vae_scale_factor
        return factor * int(self.transformer.config.patch_size)

    def _size(self, sampling: SamplingParams) -> Size:
        """Return the image size. Raises InvalidRequest for one larger than the transformer has positions for."""
        config = self.transformer.config
        default = config.sample_size * self.pipeline.vae_scale_factor
        _, size = resolve_image_sizes(sampling, default, self._token_pixels, None)
        max_side = config.pos_embed_max_size * self._token_pixels
        if max(size) > max_side:
            height, width = size
            raise InvalidRequest(
                f"an image of {width} x {height} pixels cannot be generated: {self.name} generates at most "
                f"{max_side} x {max_side}"
            )
        return size

    def _schedule(self, steps: int, size: Size) -> FlowSchedule:
        config: Any = self.pipeline.scheduler.config
        tokens = (size[0] // self._token_pixels) * (size[1] // self._token_pixels)
        return FlowSchedule.from_config(config, steps, dynamic_shift(config, tokens), self.device, linear_sigmas=False)
