"""SANA-Sprint (diffusers `SanaSprintPipeline`): one to four SCM steps, with guidance as an embedding.

The arithmetic and its order are those of the pipeline's own call. The split is cut out of the block loop of
`SanaTransformer2DModel.forward` (diffusers, sana_transformer.py).
"""

from copy import copy
from dataclasses import dataclass, replace
from functools import cached_property
from inspect import signature
from typing import Any

import torch
from diffusers import SanaSprintPipeline, SanaTransformer2DModel, SCMScheduler
from diffusers.pipelines.pixart_alpha.pipeline_pixart_alpha import ASPECT_RATIO_1024_BIN
from PIL.Image import Image
from pydantic import Field
from torch import Tensor

from forejudge.errors import InvalidRequest
from forejudge.generators.base import Architecture, GeneratorOptions, SamplingParams
from forejudge.generators.latents import Size, patch_grid, patched_architecture, resolve_image_sizes, unpatchify
from forejudge.generators.schedules import scm_add_noise, scm_model_input, scm_pred_original_sample, to_scm_timestep
from forejudge.generators.split import AdaLNSingleHidden, SplitTransformer, mask_bias
from forejudge.generators.stepwise import StepState, StepwiseGenerator, expand_to_batch
from forejudge.generators.text_encoding import CachedInstructionEncoder, check_prompt, without_softcap
from forejudge.noise import noise_batch
from forejudge.types import Grid

MAX_TEXT_TOKENS = 300  # the pipeline's default max_sequence_length
GUIDANCE_SCALE = 4.5  # the pipeline's default
_SIDE_MULTIPLE = 32  # the pipeline refuses other image sides
_BINNED_SIZE = 32  # latent size of the only models that the pipeline has bins for
_CALL = signature(SanaSprintPipeline.__call__).parameters


@dataclass(frozen=True)
class SanaInput:
    """Inputs of the transformer; the mask is 1 for text tokens and 0 for padding, None for no padding."""

    latents_NCHW: Tensor
    text_NLD: Tensor
    mask_NL: Tensor | None
    timestep_N: Tensor
    guidance_N: Tensor


class SanaSplit(SplitTransformer[SanaTransformer2DModel, SanaInput, AdaLNSingleHidden]):
    """Split of `SanaTransformer2DModel`."""

    def architecture(self, transformer: SanaTransformer2DModel) -> Architecture:
        """See `SplitTransformer.architecture`."""
        return patched_architecture(transformer, self.num_blocks(transformer), transformer.config.caption_channels)

    def embed(self, transformer: SanaTransformer2DModel, inputs: SanaInput) -> AdaLNSingleHidden:
        """See `SplitTransformer.embed`."""
        patch_size = transformer.config.patch_size
        height, width = inputs.latents_NCHW.shape[-2:]
        hidden_NTD = transformer.patch_embed(inputs.latents_NCHW)
        modulation_NE, time_ND = transformer.time_embed(
            inputs.timestep_N, guidance=inputs.guidance_N, hidden_dtype=hidden_NTD.dtype
        )
        text_NLD = transformer.caption_norm(transformer.caption_projection(inputs.text_NLD))
        return AdaLNSingleHidden(
            hidden_NTD,
            text_NLD,
            mask_bias(inputs.mask_NL, inputs.latents_NCHW.dtype),
            modulation_NE,
            time_ND,
            (height // patch_size, width // patch_size),
        )

    def run_blocks(
        self, transformer: SanaTransformer2DModel, hidden: AdaLNSingleHidden, start_block: int, end_block: int
    ) -> AdaLNSingleHidden:
        """See `SplitTransformer.run_blocks`."""
        hidden_NTD = hidden.hidden_NTD
        for block in transformer.transformer_blocks[start_block:end_block]:
            hidden_NTD = block(hidden_NTD, None, hidden.text_NLD, hidden.bias_N1L, hidden.modulation_NE, *hidden.grid)
        return replace(hidden, hidden_NTD=hidden_NTD)

    def head(self, transformer: SanaTransformer2DModel, hidden: AdaLNSingleHidden) -> Tensor:
        """See `SplitTransformer.head`."""
        hidden_NTD = transformer.norm_out(hidden.hidden_NTD, hidden.time_ND, transformer.scale_shift_table)
        return unpatchify(transformer.proj_out(hidden_NTD), hidden.grid, transformer.config.patch_size)


class SanaSprintOptions(GeneratorOptions):
    """Arguments of the pipeline's call with its defaults, and one for the text encoder.

    `complex_human_instruction`: lines put before each prompt. `intermediate_timesteps`: angle at which the second of
    exactly two steps starts; None spaces the steps evenly. `use_resolution_binning`: a 1024 px model generates the
    nearest size it was trained on, and the image is resized. `gemma_softcap`: cap the attention logits of a Gemma-2
    text encoder. transformers 4 did not, and the published verifiers were most likely trained so.
    """

    complex_human_instruction: tuple[str, ...] | None = tuple(_CALL["complex_human_instruction"].default)
    max_timesteps: float = Field(default=1.57080, gt=0, le=1.57080)
    intermediate_timesteps: float | None = Field(default=1.3, gt=0)
    use_resolution_binning: bool = True
    gemma_softcap: bool = True


@dataclass(frozen=True)
class SanaConditioning:
    """Encoded prompt, with N = 1; see `SanaInput` for the mask.

    `timesteps` are angles, the last one 0. `size` is the requested height and width, in pixels.
    """

    sampling: SamplingParams
    text_NLD: Tensor
    mask_NL: Tensor | None
    guidance_N: Tensor
    timesteps: Tensor
    latent_shape: tuple[int, int, int]
    size: Size


_State = StepState[SanaConditioning, AdaLNSingleHidden]


class SanaSprint(StepwiseGenerator[SanaTransformer2DModel, SanaInput, AdaLNSingleHidden, SanaConditioning]):
    """SANA-Sprint around a `SanaSprintPipeline`, which is not changed."""

    options: SanaSprintOptions
    split = SanaSplit()
    options_type = SanaSprintOptions

    def __init__(self, pipeline: SanaSprintPipeline, name: str, options: SanaSprintOptions | None = None) -> None:
        super().__init__(pipeline, name, options)
        _check_scheduler(pipeline.scheduler)
        components = pipeline.components
        # Encoding sets the tokenizer's padding side, so the caller's pipeline and tokenizer are copied.
        overrides = {"tokenizer": copy(components["tokenizer"])}
        if not self.options.gemma_softcap:
            overrides["text_encoder"] = without_softcap(components["text_encoder"])
        self.pipeline = SanaSprintPipeline(**components | overrides)
        encoder = self.pipeline.text_encoder
        self.encoder = CachedInstructionEncoder(encoder, self.pipeline.tokenizer, self._instruction, self.device)
        self.sigma_data = pipeline.scheduler.config.sigma_data

    def check(self, prompt: str, sampling: SamplingParams) -> None:
        """See `Generator.check`."""
        self._sizes(sampling)
        text, tokenizer = self._instruction + prompt.lower().strip(), self.pipeline.tokenizer
        check_prompt(prompt, text, tokenizer, self.num_instruction_tokens, MAX_TEXT_TOKENS)

    def grid(self, sampling: SamplingParams) -> Grid:
        """See `Generator.grid`."""
        return patch_grid(self.transformer, self._sizes(sampling)[1])

    @torch.no_grad()
    def encode(self, prompt: str, sampling: SamplingParams) -> SanaConditioning:
        """See `Generator.encode`."""
        self.check(prompt, sampling)
        with self._scaled_text_encoders(sampling.lora_scale):
            text_NLD, mask_NL = self.pipeline.encode_prompt(
                prompt,
                device=self.device,
                max_sequence_length=MAX_TEXT_TOKENS,
                complex_human_instruction=list(self.options.complex_human_instruction or ()) or None,
            )
        return self._conditioning(sampling, text_NLD, mask_NL)

    @torch.no_grad()
    def encode_without_padding(self, prompt: str, sampling: SamplingParams) -> SanaConditioning:
        """See `Generator.encode_without_padding`. The instruction is encoded once for all prompts."""
        self.check(prompt, sampling)
        with self._scaled_text_encoders(sampling.lora_scale):
            states_NLD = self.encoder.hidden_states(prompt.lower().strip(), sampling.lora_scale)
        kept_positions = [0, *range(self.num_instruction_tokens + 1, states_NLD.shape[1])]
        return self._conditioning(sampling, states_NLD[:, kept_positions], None)

    def _conditioning(self, sampling: SamplingParams, text_NLD: Tensor, mask_NL: Tensor | None) -> SanaConditioning:
        scale = GUIDANCE_SCALE if sampling.guidance_scale is None else sampling.guidance_scale
        # Rounded to the text's dtype before it is scaled, as the pipeline does.
        guidance_N = torch.full([1], scale, device=self.device).to(text_NLD.dtype)
        guidance_N = guidance_N * self.transformer.config.guidance_embeds_scale
        size, shape = self._sizes(sampling)
        timesteps = self._timesteps(sampling.steps)
        return SanaConditioning(sampling, text_NLD.to(self.dtype), mask_NL, guidance_N, timesteps, shape, size)

    def _with_sampling(self, conditioning: SanaConditioning, sampling: SamplingParams) -> SanaConditioning:
        return replace(conditioning, sampling=sampling, timesteps=self._timesteps(sampling.steps))

    def _noise(self, conditioning: SanaConditioning, seeds: tuple[int, ...], draw: int) -> Tensor:
        return self._prepare_latents(conditioning, noise_batch(seeds, draw, conditioning.latent_shape).to(self.device))

    def _prepare_latents(self, conditioning: SanaConditioning, noise_NCHW: Tensor) -> Tensor:
        return noise_NCHW * self.sigma_data

    def _inputs(self, state: _State) -> SanaInput:
        batch_size, conditioning = len(state.seeds), state.conditioning
        scm_timestep_N = to_scm_timestep(self._angle(state).expand(batch_size))
        return SanaInput(
            scm_model_input(state.latents, scm_timestep_N, self.sigma_data).to(self.dtype),
            expand_to_batch(conditioning.text_NLD, batch_size),
            expand_to_batch(conditioning.mask_NL, batch_size),
            scm_timestep_N,
            conditioning.guidance_N.expand(batch_size),
        )

    def _pred_original_sample(self, state: _State) -> Tensor:
        return (self._denoised(state) / self.sigma_data).to(self.autoencoder.dtype)

    def _next_latents(self, state: _State) -> Tensor:
        noise_NCHW = self._noise(state.conditioning, state.seeds, draw=state.step + 1)
        return scm_add_noise(self._denoised(state), noise_NCHW, state.conditioning.timesteps[state.step + 1])

    def _images(self, latents_NCHW: Tensor, conditioning: SanaConditioning) -> tuple[Image | None, ...]:
        return self._decode_latents(latents_NCHW / self.autoencoder.config.scaling_factor, conditioning.size)

    def _denoised(self, state: _State) -> Tensor:
        return scm_pred_original_sample(state.model_output, state.latents, self._angle(state), self.sigma_data)

    def _angle(self, state: _State) -> Tensor:
        """Return the angle at which the current step starts."""
        return state.conditioning.timesteps[state.step]

    def _timesteps(self, steps: int) -> Tensor:
        scheduler = SCMScheduler.from_config(self.pipeline.scheduler.config)
        scheduler.set_timesteps(
            steps,
            device=self.device,
            max_timesteps=self.options.max_timesteps,
            intermediate_timesteps=self.options.intermediate_timesteps if steps == 2 else None,
        )
        return scheduler.timesteps

    def _sizes(self, sampling: SamplingParams) -> tuple[Size, tuple[int, int, int]]:
        """Return the requested size in pixels and the shape (C, H, W) of the latents generated for it."""
        factor, default = self.pipeline.vae_scale_factor, self.transformer.config.sample_size
        bins = ASPECT_RATIO_1024_BIN if self.options.use_resolution_binning and default == _BINNED_SIZE else None
        size, (height, width) = resolve_image_sizes(sampling, default * factor, max(factor, _SIDE_MULTIPLE), bins)
        return size, (self.architecture.latent_channels, height // factor, width // factor)

    @cached_property
    def num_instruction_tokens(self) -> int:
        """Number of tokens before a prompt's own: all of the instruction's except two, as the pipeline counts."""
        return len(self.pipeline.tokenizer(self._instruction).input_ids) - 2 if self._instruction else 0

    @property
    def _instruction(self) -> str:
        return "\n".join(self.options.complex_human_instruction or ())


def _check_scheduler(scheduler: Any) -> None:
    """Raise InvalidRequest for a scheduler with other steps than SCM's."""
    if not isinstance(scheduler, SCMScheduler) or scheduler.config.prediction_type != "trigflow":
        prediction = getattr(scheduler.config, "prediction_type", None)
        raise InvalidRequest(
            f"scheduler {type(scheduler).__name__} with prediction_type = {prediction!r} is not supported: give the "
            "pipeline an SCMScheduler with prediction_type 'trigflow'"
        )
