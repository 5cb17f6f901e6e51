"""Second generator of the miniature's world: a PixArt-alpha of the library's own classes, sampled as DMD's.

Its transformer predicts the noise of its input, which is nothing but noise; the clean latents follow from that by
DDPMScheduler's formula, and the loss is measured on them.
"""

from typing import ClassVar

import torch
from diffusers import AutoencoderDC, DDPMScheduler, PixArtAlphaPipeline, PixArtTransformer2DModel
from torch import Tensor
from transformers import T5Config, T5EncoderModel, T5Tokenizer

from forejudge.generators.pixart import PixArtInput, PixArtOptions, PixArtSplit
from forejudge.miniature.scenes import NOISE_SHAPE
from research.miniature.language_model import t5_tokenizer
from research.miniature.one_step import OneStepParts, TrainingExample

# The start timestep is free. At 200 the predicted latents hold 1.2 times the initial noise, which the transformer must
# remove; at 400, where the published model starts, 2.3 times, and learning is slower.
OPTIONS = PixArtOptions(start_timestep=200)
_HEAD_WIDTH = 32


class PixArtParts(OneStepParts):
    """PixArt's transformer and a T5 encoder, which predict the clean latents by way of the noise."""

    split: ClassVar = PixArtSplit()
    output_layers = ("to_out", "ff.net.2")

    def __init__(self, blocks: int, width: int, early_exit_blocks: int) -> None:
        super().__init__()
        self.text_encoder = T5EncoderModel(_text_encoder_config(len(t5_tokenizer())))
        self.transformer = new_transformer(blocks, width, self.text_encoder.config.d_model)
        self.early_exit_blocks = early_exit_blocks
        # share of the image in the variance at the start timestep
        self.alpha_cumprod = float(_scheduler().alphas_cumprod[OPTIONS.start_timestep])

    def forward(self, ids_NL: Tensor, mask_NL: Tensor, latents_NCHW: Tensor, time_N: Tensor) -> tuple[Tensor, Tensor]:
        """See `OneStepParts.forward`; a time is a timestep of DDPMScheduler."""
        text_NLD = self.text_encoder(ids_NL, attention_mask=mask_NL)[0]
        noise, early_noise = self.transformer_outputs(PixArtInput(latents_NCHW, text_NLD, mask_NL, time_N))
        early = self._pred_original_sample(latents_NCHW, early_noise)
        return (early if noise is early_noise else self._pred_original_sample(latents_NCHW, noise)), early

    def tokenizer(self) -> T5Tokenizer:
        """See `OneStepParts.tokenizer`."""
        return t5_tokenizer()

    def training_example(self, clean_NCHW: Tensor, noise_NCHW: Tensor, generator: torch.Generator) -> TrainingExample:
        """See `OneStepParts.training_example`. Only one step is learned."""
        return TrainingExample(noise_NCHW, torch.full((len(noise_NCHW),), OPTIONS.start_timestep), clean_NCHW)

    def with_depth(self, blocks: int) -> "PixArtParts":
        """See `OneStepParts.with_depth`."""
        return PixArtParts(blocks, self.transformer.config.num_attention_heads * _HEAD_WIDTH, self.early_exit_blocks)

    def _pred_original_sample(self, latents_NCHW: Tensor, noise_NCHW: Tensor) -> Tensor:
        pred_original_sample: Tensor = (
            latents_NCHW - (1 - self.alpha_cumprod) ** 0.5 * noise_NCHW
        ) / self.alpha_cumprod**0.5
        return pred_original_sample


def new_transformer(blocks: int, width: int, text_width: int) -> PixArtTransformer2DModel:
    """Return an untrained transformer with PixArt's options, but smaller, with patches of 1 and without a variance."""
    heads = width // _HEAD_WIDTH
    return PixArtTransformer2DModel(
        num_attention_heads=heads,
        attention_head_dim=_HEAD_WIDTH,
        in_channels=NOISE_SHAPE[0],
        out_channels=NOISE_SHAPE[0],
        num_layers=blocks,
        cross_attention_dim=width,
        sample_size=NOISE_SHAPE[1],
        patch_size=1,
        caption_channels=text_width,
    )


def _text_encoder_config(vocabulary_size: int) -> T5Config:
    return T5Config(
        vocab_size=vocabulary_size,
        d_model=96,
        d_kv=32,
        d_ff=192,
        num_layers=2,
        num_heads=3,
        feed_forward_proj="gated-gelu",
        dropout_rate=0.0,
    )


def _scheduler() -> DDPMScheduler:
    """Return the published models' noise schedule, without clipping: latents are not limited to [-1, 1]."""
    return DDPMScheduler(beta_start=0.0001, beta_end=0.02, beta_schedule="linear", clip_sample=False)


def assemble(parts: PixArtParts, autoencoder: AutoencoderDC) -> PixArtAlphaPipeline:
    """Assemble the diffusers pipeline, which runs under OPTIONS with the other generator's autoencoder.

    PixArt's pipeline derives the size of latents from `block_out_channels`, which AutoencoderDC's config lacks and gets
    here.
    """
    autoencoder.register_to_config(block_out_channels=autoencoder.config.encoder_block_out_channels)
    return PixArtAlphaPipeline(t5_tokenizer(), parts.text_encoder, autoencoder, parts.transformer, _scheduler())
