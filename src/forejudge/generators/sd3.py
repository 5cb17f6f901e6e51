"""Stable Diffusion 3 and 3.5 (diffusers `StableDiffusion3Pipeline`): a few steps of flow matching without guidance.

The same arithmetic, in the same order, as the pipeline's own call; only it can stop anywhere and go on.
"""

from dataclasses import dataclass
from types import ModuleType
from typing import Any, ClassVar

import torch
from diffusers import SD3Transformer2DModel, StableDiffusion3Pipeline
from PIL.Image import Image
from pydantic import Field
from torch import Tensor

from forejudge.errors import InvalidRequest
from forejudge.generators import sd3_split
from forejudge.generators.base import Options, Sampling
from forejudge.generators.flow_matching import FlowSchedule, check_scheduler, shift_by_size
from forejudge.generators.patches import patched_architecture
from forejudge.generators.pictures import Size, picture_sizes
from forejudge.generators.prompts import check_prompt
from forejudge.generators.sd3_split import SD3Input
from forejudge.generators.step_state import StepState, for_each
from forejudge.generators.stepwise import StepwiseGenerator, check_without_guidance, weights_fingerprint
from forejudge.noise import noise_batch


class StableDiffusion3Options(Options):
    """`max_sequence_length` is how many tokens T5 reads, padded where the prompt has fewer: the padding shows."""

    max_sequence_length: int = Field(default=256, ge=1, le=512)


@dataclass(frozen=True)
class StableDiffusion3Conditioning:
    """A prompt, encoded, with N = 1: CLIP's and then T5's text (1, L, D), CLIP's pooled text (1, P). Size in pixels."""

    sampling: Sampling
    text_NLD: Tensor
    pooled_NP: Tensor
    schedule: FlowSchedule
    size: Size


class StableDiffusion3(StepwiseGenerator):
    """Wraps a `StableDiffusion3Pipeline`, which stays as it is. Raises InvalidRequest where it cannot be cut.

    Nothing in it says whether its transformer was distilled to draw without guidance, as that of SD3.5 turbo was. A
    view at a latent shows it before the decoder's scaling_factor and shift_factor are applied.
    """

    transformer: SD3Transformer2DModel
    options: StableDiffusion3Options
    split: ClassVar[ModuleType] = sd3_split
    options_type = StableDiffusion3Options

    def __init__(
        self, pipeline: StableDiffusion3Pipeline, name: str, options: StableDiffusion3Options | None = None
    ) -> None:
        super().__init__(pipeline, name, options)
        check_scheduler(pipeline.scheduler)
        # Encoding notes LoRA's scale on the pipeline: one of our own around the same models.
        self.pipeline = StableDiffusion3Pipeline(**pipeline.components)
        self.architecture = patched_architecture(self.transformer, self.transformer.config.joint_attention_dim)
        self.fingerprint = weights_fingerprint((self.transformer.proj_out, "weight"))

    def check(self, prompt: str, sampling: Sampling) -> None:
        """See `Generator.check`. T5 must read the whole prompt, without T5 CLIP. Guidance is refused."""
        check_without_guidance(sampling, self.name)
        self._size(sampling)
        pipeline, end_mark = self.pipeline, 1
        tokenizer, most = pipeline.tokenizer_3, self.options.max_sequence_length
        if tokenizer is None:
            tokenizer, most = pipeline.tokenizer, pipeline.tokenizer_max_length
        check_prompt(prompt, prompt, tokenizer, 0, most, end_mark)

    @torch.no_grad()
    def encode(self, prompt: str, sampling: Sampling) -> StableDiffusion3Conditioning:
        """See `Generator.encode`. Of a prompt that T5 reads whole, the two CLIPs read the beginning."""
        self.check(prompt, sampling)
        size = self._size(sampling)
        text_NLD, _, pooled_NP, _ = self.pipeline.encode_prompt(
            prompt,
            None,
            None,
            device=self.device,
            do_classifier_free_guidance=False,
            max_sequence_length=self.options.max_sequence_length,
            lora_scale=sampling.lora_scale,
        )
        schedule = self._schedule(sampling.steps, size)
        return StableDiffusion3Conditioning(sampling, text_NLD.to(self.dtype), pooled_NP.to(self.dtype), schedule, size)

    def _noise(self, conditioning: StableDiffusion3Conditioning, seeds: tuple[int, ...], draw: int) -> Tensor:
        factor, (height, width) = self.pipeline.vae_scale_factor, conditioning.size
        shape = (self.architecture.latent_channels, height // factor, width // factor)
        return noise_batch(seeds, draw, shape, self.dtype).to(self.device)

    def _laid_out(self, conditioning: StableDiffusion3Conditioning, noise_NCHW: Tensor) -> Tensor:
        return noise_NCHW.to(self.dtype)

    def _inputs(self, state: StepState) -> SD3Input:
        count, conditioning = len(state.seeds), state.conditioning
        return SD3Input(
            state.noisy,
            for_each(conditioning.text_NLD, count),
            for_each(conditioning.pooled_NP, count),
            conditioning.schedule.timesteps_S[state.step].expand(count),
        )

    def _latents(self, state: StepState) -> Tensor:
        clean_NCHW: Tensor = state.conditioning.schedule.clean(state.step, state.noisy, state.finished)
        return clean_NCHW

    def _next_noisy(self, state: StepState) -> Tensor:
        noisy_NCHW: Tensor = state.conditioning.schedule.following(state.step, state.noisy, state.finished)
        return noisy_NCHW

    def _pictures(self, latents_NCHW: Tensor, conditioning: StableDiffusion3Conditioning) -> tuple[Image, ...]:
        config = self.autoencoder.config
        return self._decoded((latents_NCHW / config.scaling_factor) + config.shift_factor, conditioning.size)

    def _size(self, sampling: Sampling) -> Size:
        """Of the pictures. Raises InvalidRequest for one that the transformer has no positions for."""
        config = self.transformer.config
        token = self.pipeline.vae_scale_factor * config.patch_size
        _, size = picture_sizes(sampling, config.sample_size * self.pipeline.vae_scale_factor, token, None)
        most = config.pos_embed_max_size * token
        if max(size) > most:
            height, width = size
            raise InvalidRequest(
                f"a picture of {width} x {height} pixels cannot be drawn: {self.name} draws at most {most} x {most}"
            )
        return size

    def _schedule(self, steps: int, size: Size) -> FlowSchedule:
        config: Any = self.pipeline.scheduler.config
        token = self.pipeline.vae_scale_factor * self.transformer.config.patch_size
        tokens = (size[0] // token) * (size[1] // token)
        return FlowSchedule.of_scheduler(config, steps, shift_by_size(config, tokens), self.device)
