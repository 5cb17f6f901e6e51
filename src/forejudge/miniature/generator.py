"""The miniature's generator: a SANA-Sprint of the library's own classes, trained to draw in one step.

At the last time (pure noise) the scene is coupled with the noise (`one_step`). At earlier times the picture is mixed
with independent noise, because SCMScheduler re-noises every further step afresh.
"""

import math
from types import ModuleType
from typing import ClassVar

import torch
from diffusers import AutoencoderDC, SanaSprintPipeline, SanaTransformer2DModel, SCMScheduler
from torch import Tensor
from transformers import Gemma2Config, Gemma2Model, GemmaTokenizer

from forejudge.generators import sana_split
from forejudge.generators.sana_split import SanaInput
from forejudge.miniature.coupling import NOISE_SHAPE
from forejudge.miniature.one_step import Exercise, OneStepParts
from forejudge.miniature.tokenizers import gemma_tokenizer

GUIDANCE_SCALE = 4.5  # the pipeline's default
_COUPLED_SHARE = 0.75
_EARLIEST_TIME = 0.1  # of SCMScheduler's angle, whose last is pi / 2
_HEAD_WIDTH = 32


class GeneratorParts(OneStepParts):
    """SANA-Sprint's transformer and a Gemma-2, which predict the velocity: noise less clean latents."""

    split: ClassVar[ModuleType] = sana_split
    outputs = ("to_out", "conv_point")

    def __init__(self, blocks: int, width: int, decided_after: int) -> None:
        super().__init__()
        self.text_encoder = Gemma2Model(_text_encoder_config(len(gemma_tokenizer())))
        self.transformer = new_transformer(blocks, width, self.text_encoder.config.hidden_size)
        self.decided_after = decided_after

    def forward(self, ids_NL: Tensor, mask_NL: Tensor, latents_NCHW: Tensor, time_N: Tensor) -> tuple[Tensor, Tensor]:
        """See `OneStepParts.forward`; a time is sin / (sin + cos) of SCMScheduler's angle."""
        text_NLD = self.text_encoder(ids_NL, attention_mask=mask_NL)[0]
        guidance_N = torch.full_like(time_N, GUIDANCE_SCALE * self.transformer.config.guidance_embeds_scale)
        return self.outputs_of(SanaInput(latents_NCHW, text_NLD, mask_NL, time_N, guidance_N))

    def tokenizer(self) -> GemmaTokenizer:
        """See `OneStepParts.tokenizer`."""
        return gemma_tokenizer()

    def exercise(self, clean_NCHW: Tensor, noise_NCHW: Tensor, generator: torch.Generator) -> Exercise:
        """See `OneStepParts.exercise`."""
        size = len(clean_NCHW)
        coupled = torch.rand(size, generator=generator) < _COUPLED_SHARE
        other = torch.randn(noise_NCHW.shape, generator=generator)
        noise = torch.where(coupled.view(-1, 1, 1, 1), noise_NCHW, other)
        time = torch.where(coupled, 1.0, _random_times(size, generator))
        share = time.view(-1, 1, 1, 1)
        return Exercise((1 - share) * clean_NCHW + share * noise, time, noise - clean_NCHW)

    def of_depth(self, blocks: int) -> "GeneratorParts":
        """See `OneStepParts.of_depth`."""
        return GeneratorParts(blocks, self.transformer.config.num_attention_heads * _HEAD_WIDTH, self.decided_after)


def new_transformer(blocks: int, width: int, text_width: int) -> SanaTransformer2DModel:
    """An untrained transformer with SANA-Sprint's options, only smaller, and with position embeddings."""
    heads = width // _HEAD_WIDTH
    return SanaTransformer2DModel(
        in_channels=NOISE_SHAPE[0],
        out_channels=NOISE_SHAPE[0],
        num_attention_heads=heads,
        attention_head_dim=_HEAD_WIDTH,
        num_layers=blocks,
        num_cross_attention_heads=heads,
        cross_attention_head_dim=_HEAD_WIDTH,
        cross_attention_dim=width,
        caption_channels=text_width,
        sample_size=NOISE_SHAPE[1],
        interpolation_scale=1,
        guidance_embeds=True,
        guidance_embeds_scale=0.1,
        qk_norm="rms_norm_across_heads",
        timestep_scale=1000.0,
    )


def _text_encoder_config(vocabulary_size: int) -> Gemma2Config:
    return Gemma2Config(
        vocab_size=vocabulary_size,
        hidden_size=96,
        intermediate_size=192,
        num_hidden_layers=2,
        num_attention_heads=3,
        num_key_value_heads=1,
        head_dim=32,
        query_pre_attn_scalar=32,
        max_position_embeddings=512,
        initializer_range=0.1,
    )


def _random_times(size: int, generator: torch.Generator) -> Tensor:
    """Times as the transformer is told them: sin / (sin + cos) of a uniform angle."""
    angle = torch.rand(size, generator=generator) * (math.pi / 2 - _EARLIEST_TIME) + _EARLIEST_TIME
    return angle.sin() / (angle.sin() + angle.cos())


def assemble(parts: GeneratorParts, autoencoder: AutoencoderDC) -> SanaSprintPipeline:
    """The pipeline that plain diffusers loads and runs."""
    return SanaSprintPipeline(
        tokenizer=_padded(gemma_tokenizer()),
        text_encoder=parts.text_encoder,
        vae=autoencoder,
        transformer=parts.transformer,
        scheduler=SCMScheduler(),
    )


def _padded(tokenizer: GemmaTokenizer) -> GemmaTokenizer:
    tokenizer.padding_side = "right"
    return tokenizer
