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
from transformers import (
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTokenizer,
    Qwen3Config,
    Qwen3ForCausalLM,
    T5Config,
    T5EncoderModel,
)

from forejudge.generators.base import OPTIONS_FILE, Options
from forejudge.generators.flux import FluxOptions
from forejudge.generators.flux2 import Flux2Options
from forejudge.miniature.tokenizers import clip_tokenizer, qwen2_tokenizer, t5_tokenizer

TEXT_TOKENS = 30
SCHNELL = FlowMatchEulerDiscreteScheduler(shift=1.0, base_shift=0.5, max_shift=1.15)
DEV = FlowMatchEulerDiscreteScheduler(shift=3.0, use_dynamic_shifting=True)  # by the size of the picture
_AUTOENCODER: dict[str, Any] = {
    "down_block_types": ("DownEncoderBlock2D",) * 2,
    "up_block_types": ("UpDecoderBlock2D",) * 2,
    "block_out_channels": (8, 8),
    "latent_channels": 4,
    "norm_num_groups": 2,
}


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
    tokenizer, tokenizer_2 = _clip_tokenizer(), t5_tokenizer()
    autoencoder = AutoencoderKL(**_AUTOENCODER, scaling_factor=0.36, shift_factor=0.12, use_quant_conv=False).eval()
    clip, t5 = _clip(tokenizer), _t5(len(tokenizer_2))
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
    autoencoder = AutoencoderKLFlux2(**_AUTOENCODER).eval()
    autoencoder.bn.running_mean.normal_()
    autoencoder.bn.running_var.uniform_(0.5, 2)
    pipeline = Flux2KleinPipeline(DEV, autoencoder, text_encoder, tokenizer, transformer, is_distilled)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def save_flux(folder: Path, pipeline: FluxPipeline) -> Path:
    """Write its folder and return it."""
    return _save(folder, pipeline, FluxOptions(max_sequence_length=TEXT_TOKENS))


def save_flux2(folder: Path, pipeline: Flux2KleinPipeline) -> Path:
    """Write its folder and return it."""
    return _save(folder, pipeline, Flux2Options(max_sequence_length=TEXT_TOKENS))


def _save(folder: Path, pipeline: Any, options: Options) -> Path:
    pipeline.save_pretrained(folder)
    (folder / OPTIONS_FILE).write_text(options.model_dump_json())
    return folder


def _clip_tokenizer() -> CLIPTokenizer:
    tokenizer = clip_tokenizer([])
    tokenizer.model_max_length = 20  # 77 in the published ones
    return tokenizer


def _clip(tokenizer: CLIPTokenizer) -> CLIPTextModel:
    config = CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=tokenizer.model_max_length,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )
    return CLIPTextModel(config).eval()


def _t5(vocabulary: int) -> T5EncoderModel:
    config = T5Config(vocab_size=vocabulary, d_model=32, d_kv=16, d_ff=64, num_layers=2, num_heads=2)
    return T5EncoderModel(config).eval()
