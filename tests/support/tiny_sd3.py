"""Untrained Stable Diffusion 3 pipelines of the library's own classes, small enough to be made in a second.

A token is 4 x 4 pixels. Each folder says that few text tokens are read.
"""

from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, FlowMatchEulerDiscreteScheduler, SD3Transformer2DModel, StableDiffusion3Pipeline
from transformers import CLIPTextModelWithProjection

from forejudge.generators.sd3 import StableDiffusion3Options
from research.miniature.language_model import t5_tokenizer
from tests.support.tiny_parts import (
    AUTOENCODER,
    TEXT_TOKENS,
    TEXT_WIDTH,
    new_clip,
    new_t5,
    save_with_options,
    short_clip_tokenizer,
)

TURBO = FlowMatchEulerDiscreteScheduler(shift=3.0)


def new_sd3_transformer(**changes: Any) -> SD3Transformer2DModel:
    """Three blocks, for images of 8 x 8 tokens and at most 12 x 12."""
    torch.manual_seed(0)
    sizes = {"num_layers": 3, "num_attention_heads": 2, "attention_head_dim": 16, "caption_projection_dim": 32}
    text = {"joint_attention_dim": TEXT_WIDTH, "pooled_projection_dim": TEXT_WIDTH}
    latents = {"sample_size": 16, "pos_embed_max_size": 12, "in_channels": 4, "out_channels": 4}
    return SD3Transformer2DModel(**{"qk_norm": "rms_norm", **sizes, **text, **latents, **changes}).eval()


def new_sd3(scheduler: FlowMatchEulerDiscreteScheduler = TURBO) -> StableDiffusion3Pipeline:
    """As SD3.5-large-turbo: the two CLIPs' texts stand side by side, before T5's."""
    transformer = new_sd3_transformer()
    autoencoder = AutoencoderKL(**AUTOENCODER, scaling_factor=1.5, shift_factor=0.06, use_quant_conv=False).eval()
    clip_tokenizer, tokenizer_3 = short_clip_tokenizer(), t5_tokenizer()
    clips = [new_clip(CLIPTextModelWithProjection, clip_tokenizer, TEXT_WIDTH // 2) for _ in range(2)]
    pipeline = StableDiffusion3Pipeline(
        transformer,
        scheduler,
        autoencoder,
        clips[0],
        clip_tokenizer,
        clips[1],
        clip_tokenizer,
        new_t5(len(tokenizer_3)),
        tokenizer_3,
    )
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def save_sd3(folder: Path, pipeline: StableDiffusion3Pipeline) -> Path:
    """Write its folder and return it."""
    return save_with_options(folder, pipeline, StableDiffusion3Options(max_sequence_length=TEXT_TOKENS))
