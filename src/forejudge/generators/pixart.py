"""PixArt-alpha (diffusers `PixArtAlphaPipeline`): one step of DMD, or one to a few of latent consistency.

The arithmetic and its order are those of the pipeline's own call without guidance; each step is the scheduler's own.
The split is cut out of the block loop of `PixArtTransformer2DModel.forward` (diffusers, pixart_transformer_2d.py).
"""

from dataclasses import dataclass, replace
from inspect import signature

import torch
from diffusers import DDPMScheduler, LCMScheduler, PixArtAlphaPipeline, PixArtTransformer2DModel
from diffusers.pipelines.pixart_alpha.pipeline_pixart_alpha import (
    ASPECT_RATIO_256_BIN,
    ASPECT_RATIO_512_BIN,
    ASPECT_RATIO_1024_BIN,
)
from PIL.Image import Image
from pydantic import Field
from torch import Tensor

from forejudge.errors import InvalidRequest
from forejudge.generators.base import Architecture, GeneratorOptions, SamplingParams
from forejudge.generators.latents import Size, patch_grid, patched_architecture, resolve_image_sizes, unpatchify
from forejudge.generators.split import AdaLNSingleHidden, SplitTransformer, mask_bias
from forejudge.generators.stepwise import (
    StepState,
    StepwiseGenerator,
    check_without_guidance,
    expand_to_batch,
)
from forejudge.generators.text_encoding import check_prompt
from forejudge.noise import noise_batch, noise_generator
from forejudge.types import Grid

MAX_TEXT_TOKENS: int = signature(PixArtAlphaPipeline.__call__).parameters["max_sequence_length"].default
_BINS = {32: ASPECT_RATIO_256_BIN, 64: ASPECT_RATIO_512_BIN, 128: ASPECT_RATIO_1024_BIN}  # by size of the latents
_SIZE_CONDITIONED_SAMPLE_SIZE = 128  # models of this latent size take the image size as an input


@dataclass(frozen=True)
class PixArtInput:
    """Inputs of the transformer; the mask is 1 for text tokens and 0 for padding, None for no padding.

    1024 px models also take `resolution_N2` (height and width in pixels) and `aspect_ratio_N1` (height / width).
    """

    latents_NCHW: Tensor
    text_NLD: Tensor
    mask_NL: Tensor | None
    timestep_N: Tensor
    resolution_N2: Tensor | None = None
    aspect_ratio_N1: Tensor | None = None


class PixArtSplit(SplitTransformer[PixArtTransformer2DModel, PixArtInput, AdaLNSingleHidden]):
    """Split of `PixArtTransformer2DModel`."""

    def architecture(self, transformer: PixArtTransformer2DModel) -> Architecture:
        """See `SplitTransformer.architecture`."""
        return patched_architecture(transformer, self.num_blocks(transformer), transformer.config.caption_channels)

    def embed(self, transformer: PixArtTransformer2DModel, inputs: PixArtInput) -> AdaLNSingleHidden:
        """See `SplitTransformer.embed`."""
        patch_size = transformer.config.patch_size
        batch_size, _, height, width = inputs.latents_NCHW.shape
        hidden_NTD = transformer.pos_embed(inputs.latents_NCHW)
        modulation_NE, time_ND = transformer.adaln_single(
            inputs.timestep_N,
            {"resolution": inputs.resolution_N2, "aspect_ratio": inputs.aspect_ratio_N1},
            batch_size=batch_size,
            hidden_dtype=hidden_NTD.dtype,
        )
        text_NLD = inputs.text_NLD
        if transformer.caption_projection is not None:
            text_NLD = transformer.caption_projection(text_NLD)
        return AdaLNSingleHidden(
            hidden_NTD,
            text_NLD,
            mask_bias(inputs.mask_NL, inputs.latents_NCHW.dtype),
            modulation_NE,
            time_ND,
            (height // patch_size, width // patch_size),
        )

    def run_blocks(
        self, transformer: PixArtTransformer2DModel, hidden: AdaLNSingleHidden, start_block: int, end_block: int
    ) -> AdaLNSingleHidden:
        """See `SplitTransformer.run_blocks`."""
        hidden_NTD = hidden.hidden_NTD
        for block in transformer.transformer_blocks[start_block:end_block]:
            hidden_NTD = block(
                hidden_NTD,
                encoder_hidden_states=hidden.text_NLD,
                encoder_attention_mask=hidden.bias_N1L,
                timestep=hidden.modulation_NE,
            )
        return replace(hidden, hidden_NTD=hidden_NTD)

    def head(self, transformer: PixArtTransformer2DModel, hidden: AdaLNSingleHidden) -> Tensor:
        """See `SplitTransformer.head`."""
        table = transformer.scale_shift_table[None]
        shift_N1D, scale_N1D = (table + hidden.time_ND[:, None].to(table.device)).split(1, dim=1)
        hidden_NTD = transformer.norm_out(hidden.hidden_NTD)
        hidden_NTD = hidden_NTD * (1 + scale_N1D.to(hidden_NTD.device)) + shift_N1D.to(hidden_NTD.device)
        return unpatchify(transformer.proj_out(hidden_NTD), hidden.grid, transformer.config.patch_size)


class PixArtOptions(GeneratorOptions):
    """Arguments of the pipeline's call.

    `start_timestep`: where the one step of DMD starts, the pipeline's `timesteps`; an LCMScheduler spaces its own.
    `use_resolution_binning`: a model of 256, 512 or 1024 px generates the nearest size it was trained on, and the image
    is resized.
    """

    start_timestep: int = Field(default=400, ge=0, lt=1000)
    use_resolution_binning: bool = True


@dataclass(frozen=True)
class PixArtConditioning:
    """Encoded prompt, with N = 1; see `PixArtInput` for the mask. `timesteps` are where the steps start.

    `size` is the requested height and width, `generated_size` the one before resizing, in pixels.
    """

    sampling: SamplingParams
    text_NLD: Tensor
    mask_NL: Tensor | None
    timesteps: Tensor
    latent_shape: tuple[int, int, int]
    size: Size
    generated_size: Size


_State = StepState[PixArtConditioning, AdaLNSingleHidden]


class PixArt(StepwiseGenerator[PixArtTransformer2DModel, PixArtInput, AdaLNSingleHidden, PixArtConditioning]):
    """PixArt-alpha around a `PixArtAlphaPipeline`, which is not changed.

    A DDPMScheduler means DMD: one step from pure noise, taken at `start_timestep` (Yin et al. 2024; PixArt-Sigma,
    supplement). An LCMScheduler means latent consistency: the requested number of steps, each with fresh noise. Any
    other scheduler is refused with InvalidRequest.
    """

    options: PixArtOptions
    split = PixArtSplit()
    options_type = PixArtOptions

    def __init__(self, pipeline: PixArtAlphaPipeline, name: str, options: PixArtOptions | None = None) -> None:
        super().__init__(pipeline, name, options)
        if not isinstance(pipeline.scheduler, DDPMScheduler | LCMScheduler):
            raise InvalidRequest(
                f"PixArt with a {type(pipeline.scheduler).__name__} takes many steps: give the pipeline a "
                "DDPMScheduler (DMD) or an LCMScheduler (PixArt-LCM), and the transformer that was trained for it"
            )

    def check(self, prompt: str, sampling: SamplingParams) -> None:
        """See `Generator.check`. Also refuses guidance, a LoRA scale, and more than one step of DMD."""
        _check_sampling(sampling)
        self._check_steps(sampling.steps)
        self._sizes(sampling)
        num_eos_tokens = 1
        check_prompt(prompt, prompt.lower().strip(), self.pipeline.tokenizer, 0, MAX_TEXT_TOKENS, num_eos_tokens)

    def grid(self, sampling: SamplingParams) -> Grid:
        """See `Generator.grid`."""
        return patch_grid(self.transformer, self._sizes(sampling)[2])

    @torch.no_grad()
    def encode(self, prompt: str, sampling: SamplingParams) -> PixArtConditioning:
        """See `Generator.encode`."""
        self.check(prompt, sampling)
        timesteps = self._scheduler(sampling.steps).timesteps
        size, generated_size, shape = self._sizes(sampling)
        text_NLD, mask_NL, _, _ = self.pipeline.encode_prompt(
            prompt,
            do_classifier_free_guidance=False,
            device=self.device,
            clean_caption=False,
            max_sequence_length=MAX_TEXT_TOKENS,
        )
        return PixArtConditioning(sampling, text_NLD.to(self.dtype), mask_NL, timesteps, shape, size, generated_size)

    def encode_without_padding(self, prompt: str, sampling: SamplingParams) -> PixArtConditioning:
        """See `Generator.encode_without_padding`. Masked tokens are dropped from cross-attention."""
        padded = self.encode(prompt, sampling)
        assert padded.mask_NL is not None
        return replace(padded, text_NLD=padded.text_NLD[:, padded.mask_NL[0].bool()], mask_NL=None)

    def _with_sampling(self, conditioning: PixArtConditioning, sampling: SamplingParams) -> PixArtConditioning:
        self._check_steps(sampling.steps)
        return replace(conditioning, sampling=sampling, timesteps=self._scheduler(sampling.steps).timesteps)

    def _noise(self, conditioning: PixArtConditioning, seeds: tuple[int, ...], draw: int) -> Tensor:
        return noise_batch(seeds, draw, conditioning.latent_shape, self.dtype).to(self.device)

    def _prepare_latents(self, conditioning: PixArtConditioning, noise_NCHW: Tensor) -> Tensor:
        return noise_NCHW.to(self.dtype)

    def _inputs(self, state: _State) -> PixArtInput:
        batch_size, conditioning = len(state.seeds), state.conditioning
        return PixArtInput(
            state.latents,
            expand_to_batch(conditioning.text_NLD, batch_size),
            expand_to_batch(conditioning.mask_NL, batch_size),
            conditioning.timesteps[state.step].expand(batch_size),
            *self._size_conditions(conditioning, batch_size),
        )

    def _pred_original_sample(self, state: _State) -> Tensor:
        _, pred_original_sample_NCHW = self._step(state)
        return pred_original_sample_NCHW.to(self.autoencoder.dtype)

    def _next_latents(self, state: _State) -> Tensor:
        latents_NCHW, _ = self._step(state)
        return latents_NCHW

    def _images(self, latents_NCHW: Tensor, conditioning: PixArtConditioning) -> tuple[Image | None, ...]:
        return self._decode_latents(latents_NCHW / self.autoencoder.config.scaling_factor, conditioning.size)

    def _step(self, state: _State) -> tuple[Tensor, Tensor]:
        """Return the next latents and the predicted clean ones after a finished step, both (N, C, H, W)."""
        conditioning, channels = state.conditioning, self.architecture.latent_channels
        noise_generators = [
            noise_generator(seed, state.step + 1, conditioning.latent_shape, self.dtype) for seed in state.seeds
        ]
        next_latents_NCHW, pred_original_sample_NCHW = self._scheduler(conditioning.sampling.steps).step(
            state.model_output[:, :channels],  # the other channels predict the variance
            conditioning.timesteps[state.step],
            state.latents,
            generator=noise_generators,
            return_dict=False,
        )
        return next_latents_NCHW, pred_original_sample_NCHW

    def _scheduler(self, steps: int) -> DDPMScheduler | LCMScheduler:
        """Make a fresh scheduler, since schedulers count the steps they take."""
        scheduler = type(self.pipeline.scheduler).from_config(self.pipeline.scheduler.config)
        if isinstance(scheduler, LCMScheduler):
            scheduler.set_timesteps(steps, device=self.device)
        else:
            scheduler.set_timesteps(timesteps=[self.options.start_timestep], device=self.device)
        return scheduler

    def _check_steps(self, steps: int) -> None:
        scheduler = self.pipeline.scheduler
        if isinstance(scheduler, LCMScheduler):
            max_steps = scheduler.config.original_inference_steps
            if steps > max_steps:
                raise InvalidRequest(
                    f"PixArt with this LCMScheduler takes at most {max_steps} steps, not {steps}: lower --steps"
                )
        elif steps != 1:
            raise InvalidRequest(f"PixArt with a DDPMScheduler (DMD) takes one step, not {steps}: leave out --steps")

    def _sizes(self, sampling: SamplingParams) -> tuple[Size, Size, tuple[int, int, int]]:
        """Return the requested and the generated size in pixels, and the shape (C, H, W) of the latents."""
        factor, config = self.pipeline.vae_scale_factor, self.transformer.config
        bins = _BINS.get(config.sample_size) if self.options.use_resolution_binning else None
        size, generated_size = resolve_image_sizes(
            sampling, config.sample_size * factor, factor * config.patch_size, bins
        )
        return size, generated_size, (config.in_channels, generated_size[0] // factor, generated_size[1] // factor)

    def _size_conditions(
        self, conditioning: PixArtConditioning, batch_size: int
    ) -> tuple[Tensor | None, Tensor | None]:
        """Return resolution (N, 2) and aspect ratio (N, 1) if the transformer takes them."""
        if self.transformer.config.sample_size != _SIZE_CONDITIONED_SAMPLE_SIZE:
            return None, None
        height, width = conditioning.generated_size
        resolution_N2 = torch.tensor([[height, width]] * batch_size, dtype=self.dtype, device=self.device)
        aspect_ratio_N1 = torch.tensor([[height / width]] * batch_size, dtype=self.dtype, device=self.device)
        return resolution_N2, aspect_ratio_N1


def _check_sampling(sampling: SamplingParams) -> None:
    check_without_guidance(sampling, "PixArt in one to a few steps")
    if sampling.lora_scale != 1:
        raise InvalidRequest(
            f"lora_scale = {sampling.lora_scale:g}: PixArtTransformer2DModel does not scale adapters, merge them into "
            "its weights at that scale"
        )
