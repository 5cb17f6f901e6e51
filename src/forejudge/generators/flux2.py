"""FLUX.2-klein (diffusers `Flux2KleinPipeline`), distilled: one to a few flow-matching steps without guidance.

The arithmetic and its order are those of the pipeline's own call. The split is cut out of the block loops of
`Flux2Transformer2DModel.forward` (diffusers, transformer_flux2.py).
Blocks are counted through both kinds: double-stream first, then single-stream.
The T tokens are those of the image, row by row. E is the width of a modulation.
"""

from dataclasses import dataclass, replace

import torch
from diffusers import Flux2KleinPipeline, Flux2Transformer2DModel
from diffusers.pipelines.flux2.pipeline_flux2_klein import compute_empirical_mu
from PIL.Image import Image
from pydantic import Field
from torch import Tensor

from forejudge.errors import InvalidRequest
from forejudge.generators.base import Architecture, GeneratorOptions, SamplingParams
from forejudge.generators.latents import image_size, packed_architecture, token_grid
from forejudge.generators.schedules import FlowConditioning, FlowSchedule, check_scheduler
from forejudge.generators.split import HiddenState, SplitTransformer
from forejudge.generators.stepwise import (
    StepState,
    StepwiseGenerator,
    check_without_guidance,
    expand_to_batch,
)
from forejudge.generators.text_encoding import check_prompt
from forejudge.library_models import check_chat_template
from forejudge.noise import noise_batch
from forejudge.types import Grid


@dataclass(frozen=True)
class Flux2Input:
    """Inputs of the transformer: latents in packed patches, with timesteps in [0, 1].

    All N share the positions of text and image.
    """

    latents_NTC: Tensor
    text_NLD: Tensor
    timestep_N: Tensor
    text_ids_L4: Tensor
    image_ids_T4: Tensor


@dataclass(frozen=True)
class Flux2Hidden(HiddenState):
    """Hidden state after some blocks; the text is updated along with the image.

    All blocks of one kind share a modulation.
    """

    text_NLD: Tensor
    time_ND: Tensor
    double_image_NE: Tensor
    double_text_NE: Tensor
    single_NE: Tensor
    rotary: tuple[Tensor, Tensor]  # cosines and sines of all positions


class Flux2Split(SplitTransformer[Flux2Transformer2DModel, Flux2Input, Flux2Hidden]):
    """Split of `Flux2Transformer2DModel`."""

    block_lists = ("transformer_blocks", "single_transformer_blocks")

    def architecture(self, transformer: Flux2Transformer2DModel) -> Architecture:
        """See `SplitTransformer.architecture`."""
        return packed_architecture(transformer, self.num_blocks(transformer))

    def embed(self, transformer: Flux2Transformer2DModel, inputs: Flux2Input) -> Flux2Hidden:
        """See `SplitTransformer.embed`."""
        time_ND = transformer.time_guidance_embed(inputs.timestep_N.to(inputs.latents_NTC.dtype) * 1000, None)
        text_rotary, image_rotary = map(transformer.pos_embed, (inputs.text_ids_L4, inputs.image_ids_T4))
        return Flux2Hidden(
            transformer.x_embedder(inputs.latents_NTC),
            transformer.context_embedder(inputs.text_NLD),
            time_ND,
            transformer.double_stream_modulation_img(time_ND),
            transformer.double_stream_modulation_txt(time_ND),
            transformer.single_stream_modulation(time_ND),
            (torch.cat((text_rotary[0], image_rotary[0])), torch.cat((text_rotary[1], image_rotary[1]))),
        )

    def run_blocks(
        self, transformer: Flux2Transformer2DModel, hidden: Flux2Hidden, start_block: int, end_block: int
    ) -> Flux2Hidden:
        """See `SplitTransformer.run_blocks`."""
        hidden_NTD, text_NLD = hidden.hidden_NTD, hidden.text_NLD
        for block in transformer.transformer_blocks[start_block:end_block]:
            text_NLD, hidden_NTD = block(
                hidden_NTD, text_NLD, hidden.double_image_NE, hidden.double_text_NE, hidden.rotary
            )
        num_double_blocks, num_text_tokens = len(transformer.transformer_blocks), text_NLD.shape[1]
        single_blocks = transformer.single_transformer_blocks[
            max(start_block - num_double_blocks, 0) : max(end_block - num_double_blocks, 0)
        ]
        if len(single_blocks):
            joint_NTD = torch.cat((text_NLD, hidden_NTD), dim=1)
            for block in single_blocks:
                joint_NTD = block(joint_NTD, None, hidden.single_NE, hidden.rotary)
            text_NLD, hidden_NTD = joint_NTD[:, :num_text_tokens], joint_NTD[:, num_text_tokens:]
        return replace(hidden, hidden_NTD=hidden_NTD, text_NLD=text_NLD)

    def head(self, transformer: Flux2Transformer2DModel, hidden: Flux2Hidden) -> Tensor:
        """See `SplitTransformer.head`."""
        output: Tensor = transformer.proj_out(transformer.norm_out(hidden.hidden_NTD, hidden.time_ND))
        return output


class Flux2Options(GeneratorOptions):
    """Arguments of the pipeline's call.

    `max_sequence_length`: tokens that the text encoder reads, chat template included. Shorter prompts are padded, and
    the padding changes the image.
    """

    max_sequence_length: int = Field(default=512, ge=1)


@dataclass(frozen=True)
class Flux2Conditioning(FlowConditioning):
    """Encoded prompt, with N = 1."""

    sampling: SamplingParams
    text_NLD: Tensor
    schedule: FlowSchedule
    text_ids_L4: Tensor
    image_ids_T4: Tensor
    grid: Grid


_State = StepState[Flux2Conditioning, Flux2Hidden]


class Flux2Klein(StepwiseGenerator[Flux2Transformer2DModel, Flux2Input, Flux2Hidden, Flux2Conditioning]):
    """FLUX.2-klein around a `Flux2KleinPipeline`, which is not changed.

    A token is 2 x 2 latents, standardized by the decoder's batch norm. A latent view shows them as the decoder takes
    them, (N, C, H, W) and no longer standardized: what the pipeline returns with output_type="latent".
    """

    options: Flux2Options
    split = Flux2Split()
    options_type = Flux2Options

    def __init__(self, pipeline: Flux2KleinPipeline, name: str, options: Flux2Options | None = None) -> None:
        super().__init__(pipeline, name, options)
        check_scheduler(pipeline.scheduler)
        check_chat_template(pipeline.tokenizer, enable_thinking=False)
        if not pipeline.config.is_distilled:
            raise InvalidRequest(
                f"{name} is not distilled (is_distilled = false): guidance runs its transformer twice a step, which is "
                "not supported; use FLUX.2-klein-4B"
            )

    def check(self, prompt: str, sampling: SamplingParams) -> None:
        """See `Generator.check`. Guidance is refused, since the pipeline would ignore it."""
        check_without_guidance(sampling, self.name)
        token_grid(self.pipeline, sampling)
        tokenizer = self.pipeline.tokenizer
        chat = tokenizer.apply_chat_template(
            [{"role": "user", "content": prompt}], tokenize=False, add_generation_prompt=True, enable_thinking=False
        )
        num_template_tokens = len(tokenizer(chat).input_ids) - len(tokenizer(prompt).input_ids)
        check_prompt(prompt, prompt, tokenizer, 0, self.options.max_sequence_length - num_template_tokens)

    def grid(self, sampling: SamplingParams) -> Grid:
        """See `Generator.grid`."""
        return token_grid(self._original_pipeline, sampling)

    @torch.no_grad()
    def encode(self, prompt: str, sampling: SamplingParams) -> Flux2Conditioning:
        """See `Generator.encode`."""
        self.check(prompt, sampling)
        grid = token_grid(self.pipeline, sampling)
        with self._scaled_text_encoders(sampling.lora_scale):
            text_NLD, text_ids_NL4 = self.pipeline.encode_prompt(
                prompt, device=self.device, max_sequence_length=self.options.max_sequence_length
            )
        (image_ids_T4,) = self.pipeline._prepare_latent_ids(torch.empty(1, 0, *grid))
        return Flux2Conditioning(
            sampling,
            text_NLD.to(self.dtype),
            self._schedule(sampling.steps, grid),
            text_ids_NL4[0],
            image_ids_T4.to(self.device),
            grid,
        )

    def _with_sampling(self, conditioning: Flux2Conditioning, sampling: SamplingParams) -> Flux2Conditioning:
        schedule = self._schedule(sampling.steps, conditioning.grid)
        return replace(conditioning, sampling=sampling, schedule=schedule)

    def _schedule(self, steps: int, grid: Grid) -> FlowSchedule:
        shift = compute_empirical_mu(grid[0] * grid[1], steps)
        return FlowSchedule.from_config(self.pipeline.scheduler.config, steps, shift, self.device)

    def _noise(self, conditioning: Flux2Conditioning, seeds: tuple[int, ...], draw: int) -> Tensor:
        shape = (self.transformer.config.in_channels, *conditioning.grid)
        return self._prepare_latents(conditioning, noise_batch(seeds, draw, shape, self.dtype).to(self.device))

    def _prepare_latents(self, conditioning: Flux2Conditioning, noise_NCHW: Tensor) -> Tensor:
        return self.pipeline._pack_latents(noise_NCHW.to(self.dtype))

    def _inputs(self, state: _State) -> Flux2Input:
        batch_size, conditioning = len(state.seeds), state.conditioning
        return Flux2Input(
            state.latents,
            expand_to_batch(conditioning.text_NLD, batch_size),
            conditioning.schedule.timesteps_S[state.step].expand(batch_size).to(self.dtype) / 1000,
            conditioning.text_ids_L4,
            conditioning.image_ids_T4,
        )

    def _pred_original_sample(self, state: _State) -> Tensor:
        pred_original_sample_NTC = state.conditioning.schedule.pred_original_sample(
            state.step, state.latents, state.model_output
        )
        pred_original_sample_NCHW = pred_original_sample_NTC.transpose(1, 2).unflatten(2, state.conditioning.grid)
        norm, epsilon = self.autoencoder.bn, self.autoencoder.config.batch_norm_eps
        mean = norm.running_mean.view(1, -1, 1, 1).to(pred_original_sample_NCHW)
        std = torch.sqrt(norm.running_var.view(1, -1, 1, 1) + epsilon).to(pred_original_sample_NCHW)
        return self.pipeline._unpatchify_latents(pred_original_sample_NCHW * std + mean)

    def _next_latents(self, state: _State) -> Tensor:
        return state.conditioning.schedule.next_latents(state.step, state.latents, state.model_output)

    def _images(self, latents_NCHW: Tensor, conditioning: Flux2Conditioning) -> tuple[Image | None, ...]:
        return self._decode_latents(latents_NCHW, image_size(self.pipeline, conditioning.grid))
