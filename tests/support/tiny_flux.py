"""Untrained FLUX pipelines of the library's own classes, small enough to be made in a second.

A token is 4 x 4 pixels. Each folder says that few text tokens are read.
"""

from pathlib import Path
from typing import Any

import torch
from diffusers import (
    AutoencoderKL,
    AutoencoderKLFlux2,
    FlowMatchEulerDiscreteScheduler,
    Flux2KleinPipeline,
    Flux2Transformer2DModel,
    FluxPipeline,
    FluxTransformer2DModel,
)
from transformers import CLIPTextModel, Qwen3Config, Qwen3ForCausalLM

from forejudge.generators.flux import FluxOptions
from forejudge.generators.flux2 import Flux2Options
from research.miniature.language_model import qwen2_tokenizer, t5_tokenizer
from tests.support.tiny_parts import (
    AUTOENCODER,
    DEV,
    TEXT_TOKENS,
    new_clip,
    new_t5,
    save_with_options,
    short_clip_tokenizer,
)

SCHNELL = FlowMatchEulerDiscreteScheduler(shift=1.0, base_shift=0.5, max_shift=1.15)


def new_flux_transformer(**changes: Any) -> FluxTransformer2DModel:
    """Two double-stream blocks, then two single-stream ones."""
    torch.manual_seed(0)
    sizes = {"num_layers": 2, "num_single_layers": 2, "num_attention_heads": 2, "attention_head_dim": 16}
    text = {"joint_attention_dim": 32, "pooled_projection_dim": 32}
    options = {"in_channels": 16, "axes_dims_rope": (4, 6, 6), **sizes, **text, **changes}
    return FluxTransformer2DModel(**options).eval()


def new_flux2_transformer(**changes: Any) -> Flux2Transformer2DModel:
    """One double-stream block, then three single-stream ones."""
    torch.manual_seed(0)
    sizes = {"num_layers": 1, "num_single_layers": 3, "num_attention_heads": 2, "attention_head_dim": 16}
    options = {"in_channels": 16, "axes_dims_rope": (4, 4, 4, 4), "joint_attention_dim": 48, "guidance_embeds": False}
    return Flux2Transformer2DModel(**{**options, **sizes, **changes}).eval()


def new_flux(scheduler: FlowMatchEulerDiscreteScheduler = SCHNELL, **changes: Any) -> FluxPipeline:
    """As FLUX.1-schnell; `changes` are the transformer's."""
    transformer = new_flux_transformer(**changes)
    tokenizer, tokenizer_2 = short_clip_tokenizer(), t5_tokenizer()
    autoencoder = AutoencoderKL(**AUTOENCODER, scaling_factor=0.36, shift_factor=0.12, use_quant_conv=False).eval()
    clip, t5 = new_clip(CLIPTextModel, tokenizer), new_t5(len(tokenizer_2))
    pipeline = FluxPipeline(scheduler, autoencoder, clip, tokenizer, t5, tokenizer_2, transformer)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def new_flux2(is_distilled: bool = True) -> Flux2KleinPipeline:
    """As FLUX.2-klein: a Qwen3 of as many layers as are read, latents with statistics of their own."""
    transformer = new_flux2_transformer()
    tokenizer = qwen2_tokenizer([])
    text_config = Qwen3Config(
        vocab_size=len(tokenizer),
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=28,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=8,
    )
    text_encoder = Qwen3ForCausalLM(text_config).eval()
    autoencoder = AutoencoderKLFlux2(**AUTOENCODER).eval()
    autoencoder.bn.running_mean.normal_()
    autoencoder.bn.running_var.uniform_(0.5, 2)
    pipeline = Flux2KleinPipeline(DEV, autoencoder, text_encoder, tokenizer, transformer, is_distilled)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def save_flux(folder: Path, pipeline: FluxPipeline) -> Path:
    """Write its folder and return it."""
    return save_with_options(folder, pipeline, FluxOptions(max_sequence_length=TEXT_TOKENS))


def save_flux2(folder: Path, pipeline: Flux2KleinPipeline) -> Path:
    """Write its folder and return it."""
    return save_with_options(folder, pipeline, Flux2Options(max_sequence_length=TEXT_TOKENS))
