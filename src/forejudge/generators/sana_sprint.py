"""SANA-Sprint (diffusers `SanaSprintPipeline`): one to a few steps of SCM with guidance as an embedding.

The same arithmetic, in the same order, as the pipeline's own call; only it can stop anywhere and go on.
"""

from copy import copy
from dataclasses import dataclass, replace
from functools import cached_property
from inspect import signature
from typing import Any, ClassVar

import torch
from diffusers import SanaSprintPipeline, SanaTransformer2DModel, SCMScheduler
from diffusers.pipelines.pixart_alpha.pipeline_pixart_alpha import ASPECT_RATIO_1024_BIN
from PIL.Image import Image
from pydantic import Field
from torch import Tensor

from forejudge.generators.adaln_single import AdaLNSingleHidden, mask_bias
from forejudge.generators.base import Architecture, Options, Sampling
from forejudge.generators.latents import Size, picture_sizes, unpatchified
from forejudge.generators.schedules import clean_latents, model_input, noise_share, noised_again
from forejudge.generators.split import SplitTransformer
from forejudge.generators.stepwise import StepState, StepwiseGenerator, for_each, weights_fingerprint
from forejudge.generators.text_encoding import InstructedEncoder, check_prompt, without_softcap
from forejudge.noise import noise_batch

# FOLDED: `SanaTransformer2DModel.forward` in two halves, cut out of its block loop (diffusers, sana_transformer.py).
#
# suffix(prefix(x)) equals the library's forward bit for bit at the same batch, for every cut.


@dataclass(frozen=True)
class SanaInput:
    """What the transformer takes: N latents, their text (N, L, D_text), mask (N, L) or none, times, guidances (N,)."""

    latents_NCHW: Tensor
    text_NLD: Tensor
    mask_NL: Tensor | None
    timestep_N: Tensor
    guidance_N: Tensor


class SanaSplit(SplitTransformer[SanaTransformer2DModel, SanaInput, AdaLNSingleHidden]):
    """Split of `SanaTransformer2DModel`."""

    def embed(self, transformer: SanaTransformer2DModel, inputs: SanaInput) -> AdaLNSingleHidden:
        """See `SplitTransformer.embed`."""
        patch = transformer.config.patch_size
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
            (height // patch, width // patch),
        )

    def run_blocks(
        self, transformer: SanaTransformer2DModel, hidden: AdaLNSingleHidden, first: int, last: int
    ) -> AdaLNSingleHidden:
        """See `SplitTransformer.run_blocks`."""
        hidden_NTD = hidden.hidden_NTD
        for block in transformer.transformer_blocks[first:last]:
            hidden_NTD = block(hidden_NTD, None, hidden.text_NLD, hidden.bias_N1L, hidden.modulation_NE, *hidden.grid)
        return replace(hidden, hidden_NTD=hidden_NTD)

    def head(self, transformer: SanaTransformer2DModel, hidden: AdaLNSingleHidden) -> Tensor:
        """See `SplitTransformer.head`."""
        hidden_NTD = transformer.norm_out(hidden.hidden_NTD, hidden.time_ND, transformer.scale_shift_table)
        return unpatchified(transformer.proj_out(hidden_NTD), hidden.grid, transformer.config.patch_size)


MAX_TEXT_TOKENS = 300  # the pipeline's default max_sequence_length
GUIDANCE_SCALE = 4.5  # its default
_SIDE_UNIT = 32  # the pipeline refuses sides that are no multiple of it
_BINNED_SIZE = 32  # latent size of the only models that it has bins for
_CALL = signature(SanaSprintPipeline.__call__).parameters


class SanaSprintOptions(Options):
    """Arguments of the pipeline's call, with its defaults, and one of how its text encoder runs.

    `complex_human_instruction` goes before each prompt. `intermediate_timesteps` is where the second of exactly two
    steps starts; None spaces them evenly. With `use_resolution_binning` a model of 1024 px draws the nearest size
    that it was trained on, and the picture is resized. Without `gemma_softcap` the attention of a Gemma-2 text
    encoder is not capped, as transformers 4 ran it (the published verifiers were most likely trained so).
    """

    complex_human_instruction: tuple[str, ...] | None = tuple(_CALL["complex_human_instruction"].default)
    max_timesteps: float = Field(default=1.57080, gt=0, le=1.57080)
    intermediate_timesteps: float | None = Field(default=1.3, gt=0)
    use_resolution_binning: bool = True
    gemma_softcap: bool = True


@dataclass(frozen=True)
class SanaConditioning:
    """A prompt, encoded, with N = 1: text (1, L, D), mask (1, L) or none, guidance (1,).

    Times are angles, the last one 0. `size` is the height and width asked for, in pixels.
    """

    sampling: Sampling
    text_NLD: Tensor
    mask_NL: Tensor | None
    guidance_N: Tensor
    times: Tensor
    latent_shape: tuple[int, int, int]
    size: Size


class SanaSprint(StepwiseGenerator):
    """Wraps a `SanaSprintPipeline`, which stays as it is. Raises InvalidRequest where it cannot be cut."""

    transformer: SanaTransformer2DModel
    options: SanaSprintOptions
    split: ClassVar = SanaSplit()
    options_type = SanaSprintOptions

    def __init__(self, pipeline: SanaSprintPipeline, name: str, options: SanaSprintOptions | None = None) -> None:
        super().__init__(pipeline, name, options)
        parts = pipeline.components
        # Encoding sets the tokenizer's padding side: a pipeline of our own around the same models, with its own one.
        own = {"tokenizer": copy(parts["tokenizer"])}
        if not self.options.gemma_softcap:
            own["text_encoder"] = without_softcap(parts["text_encoder"])
        self.pipeline = SanaSprintPipeline(**parts | own)
        encoder = self.pipeline.text_encoder
        self.encoder = InstructedEncoder(encoder, self.pipeline.tokenizer, self._instruction, self.device)
        self.sigma = pipeline.scheduler.config.sigma_data
        self.architecture = architecture_of(type(pipeline.transformer).__name__, pipeline.transformer.config)
        last = (self.transformer.proj_out, "weight"), (self.transformer, "scale_shift_table")
        self.fingerprint = weights_fingerprint(*last)

    def check(self, prompt: str, sampling: Sampling) -> None:
        """See `Generator.check`. A prompt longer than the text encoder takes is refused, not cut."""
        self._sizes(sampling)
        text, tokenizer = self._instruction + prompt.lower().strip(), self.pipeline.tokenizer
        check_prompt(prompt, text, tokenizer, self.instruction_tokens, MAX_TEXT_TOKENS)

    @torch.no_grad()
    def encode(self, prompt: str, sampling: Sampling) -> SanaConditioning:
        """See `Generator.encode`."""
        self.check(prompt, sampling)
        text_NLD, mask_NL = self.pipeline.encode_prompt(
            prompt,
            device=self.device,
            max_sequence_length=MAX_TEXT_TOKENS,
            complex_human_instruction=list(self.options.complex_human_instruction or ()) or None,
            lora_scale=sampling.lora_scale,
        )
        return self._conditioning(sampling, text_NLD, mask_NL)

    @torch.no_grad()
    def encode_without_padding(self, prompt: str, sampling: Sampling) -> SanaConditioning:
        """See `Generator.encode_without_padding`. The instruction is read once for all prompts."""
        self.check(prompt, sampling)
        states_NLD = self.encoder.states(prompt.lower().strip())
        kept = [0, *range(self.instruction_tokens + 1, states_NLD.shape[1])]
        return self._conditioning(sampling, states_NLD[:, kept], None)

    def _conditioning(self, sampling: Sampling, text_NLD: Tensor, mask_NL: Tensor | None) -> SanaConditioning:
        scale = GUIDANCE_SCALE if sampling.guidance_scale is None else sampling.guidance_scale
        # Rounded to the text's dtype before it is scaled, as the pipeline does.
        guidance_N = torch.full([1], scale, device=self.device).to(text_NLD.dtype)
        guidance_N = guidance_N * self.transformer.config.guidance_embeds_scale
        size, shape = self._sizes(sampling)
        times = self._times(sampling.steps)
        return SanaConditioning(sampling, text_NLD.to(self.dtype), mask_NL, guidance_N, times, shape, size)

    def _noise(self, conditioning: SanaConditioning, seeds: tuple[int, ...], draw: int) -> Tensor:
        return self._laid_out(conditioning, noise_batch(seeds, draw, conditioning.latent_shape).to(self.device))

    def _laid_out(self, conditioning: SanaConditioning, noise_NCHW: Tensor) -> Tensor:
        return noise_NCHW * self.sigma

    def _inputs(self, state: StepState) -> SanaInput:
        count, conditioning = len(state.seeds), state.conditioning
        share_N = noise_share(self._angle(state).expand(count))
        return SanaInput(
            model_input(state.noisy, share_N, self.sigma).to(self.dtype),
            for_each(conditioning.text_NLD, count),
            for_each(conditioning.mask_NL, count),
            share_N,
            conditioning.guidance_N.expand(count),
        )

    def _latents(self, state: StepState) -> Tensor:
        return (self._clean(state) / self.sigma).to(self.autoencoder.dtype)

    def _next_noisy(self, state: StepState) -> Tensor:
        fresh_NCHW = self._noise(state.conditioning, state.seeds, draw=state.step + 1)
        return noised_again(self._clean(state), fresh_NCHW, state.conditioning.times[state.step + 1])

    def _pictures(self, latents_NCHW: Tensor, conditioning: SanaConditioning) -> tuple[Image, ...]:
        return self._decoded(latents_NCHW / self.autoencoder.config.scaling_factor, conditioning.size)

    def _clean(self, state: StepState) -> Tensor:
        return clean_latents(state.finished, state.noisy, self._angle(state), self.sigma)

    def _angle(self, state: StepState) -> Tensor:
        """The time at which the present step starts."""
        return state.conditioning.times[state.step]

    def _times(self, steps: int) -> Tensor:
        scheduler = SCMScheduler.from_config(self.pipeline.scheduler.config)
        scheduler.set_timesteps(
            steps,
            device=self.device,
            max_timesteps=self.options.max_timesteps,
            intermediate_timesteps=self.options.intermediate_timesteps if steps == 2 else None,
        )
        return scheduler.timesteps

    def _sizes(self, sampling: Sampling) -> tuple[Size, tuple[int, int, int]]:
        """The size asked for, in pixels, and the shape of the latents drawn for it."""
        factor, default = self.pipeline.vae_scale_factor, self.architecture.latent_size
        bins = ASPECT_RATIO_1024_BIN if self.options.use_resolution_binning and default == _BINNED_SIZE else None
        size, (height, width) = picture_sizes(sampling, default * factor, max(factor, _SIDE_UNIT), bins)
        return size, (self.architecture.latent_channels, height // factor, width // factor)

    @cached_property
    def instruction_tokens(self) -> int:
        """Of those that the text encoder reads, how many are not a prompt's: all of the instruction's but two."""
        return len(self.pipeline.tokenizer(self._instruction).input_ids) - 2 if self._instruction else 0

    @property
    def _instruction(self) -> str:
        return "\n".join(self.options.complex_human_instruction or ())


def architecture_of(transformer: str, config: Any) -> Architecture:
    """By the transformer's class name and its config in diffusers."""
    return Architecture(
        transformer=transformer,
        width=config.num_attention_heads * config.attention_head_dim,
        num_blocks=config.num_layers,
        latent_channels=config.in_channels,
        latent_size=config.sample_size,
        text_width=config.caption_channels,
    )
