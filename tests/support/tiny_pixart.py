"""Untrained PixArt pipelines of the library's own classes, small enough to be made in a second."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, DDPMScheduler, LCMScheduler, PixArtAlphaPipeline, PixArtTransformer2DModel
from transformers import T5Config, T5EncoderModel

from research.miniature.language_model import t5_tokenizer
from tests.support.doubles import PROMPT

BLOCKS = 3
BETAS = {"beta_start": 0.0001, "beta_end": 0.02, "beta_schedule": "linear"}  # those of the published models
DMD = DDPMScheduler(clip_sample=False, **BETAS)
LCM = LCMScheduler(**BETAS)


def new_transformer(**changes: Any) -> PixArtTransformer2DModel:
    """An untrained transformer whose output depends on all that goes in; it predicts a variance too."""
    options = {"sample_size": 8, "out_channels": 8, "caption_channels": 32, **changes}
    return PixArtTransformer2DModel(
        num_attention_heads=2,
        attention_head_dim=24,
        in_channels=4,
        num_layers=BLOCKS,
        cross_attention_dim=48,
        **options,
    ).eval()


def new_pipeline(scheduler: DDPMScheduler | LCMScheduler = DMD, **changes: Any) -> PixArtAlphaPipeline:
    """Make a pipeline whose latents are an eighth of its images; `changes` are the transformer's."""
    torch.manual_seed(0)
    tokenizer = t5_tokenizer()
    text_config = T5Config(
        vocab_size=len(tokenizer),
        d_model=32,
        d_kv=16,
        d_ff=64,
        num_layers=2,
        num_heads=2,
        feed_forward_proj="gated-gelu",
    )
    autoencoder = AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        block_out_channels=(8, 8, 8, 8),
        latent_channels=4,
        norm_num_groups=2,
    )
    parts = T5EncoderModel(text_config).eval(), autoencoder.eval(), new_transformer(**changes)
    pipeline = PixArtAlphaPipeline(tokenizer, *parts, scheduler)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def save_tiny_pixart(folder: Path, **changes: Any) -> Path:
    """Write a pipeline folder and return it."""
    new_pipeline(**changes).save_pretrained(folder)
    return folder


def call_reference_pipeline(pipeline: PixArtAlphaPipeline, seeds: Sequence[int], steps: int = 1, **changes: Any) -> Any:
    """Call the pipeline itself with seeds, with no line of ours, in one batch."""
    is_dmd = isinstance(pipeline.scheduler, DDPMScheduler)
    options = {
        "use_resolution_binning": False,
        "timesteps": [400] if is_dmd else None,
        "num_inference_steps": steps,
        **changes,
    }
    return pipeline(
        PROMPT,
        guidance_scale=1,
        clean_caption=False,
        num_images_per_prompt=len(seeds),
        generator=[torch.Generator().manual_seed(seed) for seed in seeds],
        **options,
    ).images
