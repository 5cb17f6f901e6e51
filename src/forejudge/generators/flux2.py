"""FLUX.2-klein (diffusers `Flux2KleinPipeline`), distilled: one to a few steps of flow matching without guidance.

The same arithmetic, in the same order, as the pipeline's own call; only it can stop anywhere and go on.
"""

from dataclasses import dataclass
from types import ModuleType
from typing import ClassVar

import torch
from diffusers import Flux2KleinPipeline, Flux2Transformer2DModel
from diffusers.pipelines.flux2.pipeline_flux2_klein import compute_empirical_mu
from PIL.Image import Image
from pydantic import Field
from torch import Tensor

from forejudge.errors import InvalidRequest
from forejudge.generators import flux2_split
from forejudge.generators.base import Options, Sampling
from forejudge.generators.flow_matching import FlowSchedule, check_scheduler
from forejudge.generators.flux2_split import Flux2Input
from forejudge.generators.packed_tokens import Grid, packed_architecture, picture_size, token_grid
from forejudge.generators.prompts import check_prompt
from forejudge.generators.step_state import StepState, for_each
from forejudge.generators.stepwise import StepwiseGenerator, check_without_guidance, weights_fingerprint
from forejudge.noise import noise_batch


class Flux2Options(Options):
    """`max_sequence_length` is how many tokens the text encoder reads, with its chat template around the prompt.

    It is padded where the prompt has fewer, and the padding shows.
    """

    max_sequence_length: int = Field(default=512, ge=1)


@dataclass(frozen=True)
class Flux2Conditioning:
    """A prompt, encoded, with N = 1: text (1, L, D)."""

    sampling: Sampling
    text_NLD: Tensor
    schedule: FlowSchedule
    text_ids_L4: Tensor
    image_ids_T4: Tensor
    grid: Grid


class Flux2Klein(StepwiseGenerator):
    """Wraps a `Flux2KleinPipeline`, which stays as it is. Raises InvalidRequest where it cannot be cut.

    A token is 2 x 2 latents, standardised by the decoder's batch norm. A view at a latent shows them as the decoder
    takes them, (N, C, H, W) and no longer standardised: what the pipeline returns as output_type="latent".
    """

    transformer: Flux2Transformer2DModel
    options: Flux2Options
    split: ClassVar[ModuleType] = flux2_split
    options_type = Flux2Options

    def __init__(self, pipeline: Flux2KleinPipeline, name: str, options: Flux2Options | None = None) -> None:
        super().__init__(pipeline, name, options)
        check_scheduler(pipeline.scheduler)
        if not pipeline.config.is_distilled:
            raise InvalidRequest(
                f"{name} is not distilled (is_distilled = false): with guidance its transformer runs twice a step, "
                "which is not supported; use FLUX.2-klein-4B"
            )
        self.architecture = packed_architecture(pipeline)
        self.fingerprint = weights_fingerprint((self.transformer.proj_out, "weight"))

    def check(self, prompt: str, sampling: Sampling) -> None:
        """See `Generator.check`. Guidance is refused: the pipeline would ignore it."""
        check_without_guidance(sampling, self.name)
        token_grid(self.pipeline, sampling)
        tokenizer = self.pipeline.tokenizer
        chat = tokenizer.apply_chat_template(
            [{"role": "user", "content": prompt}], tokenize=False, add_generation_prompt=True, enable_thinking=False
        )
        around = len(tokenizer(chat).input_ids) - len(tokenizer(prompt).input_ids)
        check_prompt(prompt, prompt, tokenizer, 0, self.options.max_sequence_length - around)

    @torch.no_grad()
    def encode(self, prompt: str, sampling: Sampling) -> Flux2Conditioning:
        """See `Generator.encode`."""
        self.check(prompt, sampling)
        grid = rows, columns = token_grid(self.pipeline, sampling)
        text_NLD, text_ids_NL4 = self.pipeline.encode_prompt(
            prompt, device=self.device, max_sequence_length=self.options.max_sequence_length
        )
        (image_ids_T4,) = self.pipeline._prepare_latent_ids(torch.empty(1, 0, rows, columns))
        shift = compute_empirical_mu(rows * columns, sampling.steps)
        return Flux2Conditioning(
            sampling,
            text_NLD.to(self.dtype),
            FlowSchedule.of(self.pipeline.scheduler.config, sampling.steps, shift, self.device),
            text_ids_NL4[0],
            image_ids_T4.to(self.device),
            grid,
        )

    def _noise(self, conditioning: Flux2Conditioning, seeds: tuple[int, ...], draw: int) -> Tensor:
        shape = (self.transformer.config.in_channels, *conditioning.grid)
        return self._laid_out(conditioning, noise_batch(seeds, draw, shape, self.dtype).to(self.device))

    def _laid_out(self, conditioning: Flux2Conditioning, noise_NCHW: Tensor) -> Tensor:
        return self.pipeline._pack_latents(noise_NCHW.to(self.dtype))

    def _inputs(self, state: StepState) -> Flux2Input:
        count, conditioning = len(state.seeds), state.conditioning
        return Flux2Input(
            state.noisy,
            for_each(conditioning.text_NLD, count),
            conditioning.schedule.timesteps_S[state.step].expand(count).to(self.dtype) / 1000,
            conditioning.text_ids_L4,
            conditioning.image_ids_T4,
        )

    def _latents(self, state: StepState) -> Tensor:
        clean_NTC = state.conditioning.schedule.clean(state.step, state.noisy, state.finished)
        clean_NCHW = clean_NTC.transpose(1, 2).unflatten(2, state.conditioning.grid)
        norm, epsilon = self.autoencoder.bn, self.autoencoder.config.batch_norm_eps
        mean = norm.running_mean.view(1, -1, 1, 1).to(clean_NCHW)
        deviation = torch.sqrt(norm.running_var.view(1, -1, 1, 1) + epsilon).to(clean_NCHW)
        return self.pipeline._unpatchify_latents(clean_NCHW * deviation + mean)

    def _next_noisy(self, state: StepState) -> Tensor:
        return state.conditioning.schedule.following(state.step, state.noisy, state.finished)

    def _pictures(self, latents_NCHW: Tensor, conditioning: Flux2Conditioning) -> tuple[Image, ...]:
        return self._decoded(latents_NCHW, picture_size(self.pipeline, conditioning.grid))
