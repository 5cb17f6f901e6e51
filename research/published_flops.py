"""FLOPs of FLUX.1-schnell and FLUX.2-klein-4B at 1024 px and of PixArt-alpha at 512 px, counted without any weights.

The architectures are the published ones; the defaults of diffusers' classes are those of FLUX.1 and of FLUX.2-dev.
"""

from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from diffusers import (
    AutoencoderKL,
    AutoencoderKLFlux2,
    Flux2Transformer2DModel,
    FluxTransformer2DModel,
    PixArtTransformer2DModel,
)
from torch import nn
from transformers import Qwen3Config, Qwen3ForCausalLM, T5Config, T5EncoderModel

from forejudge.generators.flux import FluxInput, FluxSplit
from forejudge.generators.flux2 import Flux2Input, Flux2Split
from forejudge.generators.pixart import PixArtInput, PixArtSplit
from forejudge.generators.split import SplitTransformer
from forejudge.profiling.measure import count_flops

PIXART_512: dict[str, int] = {
    "num_layers": 28,
    "num_attention_heads": 16,
    "attention_head_dim": 72,
    "cross_attention_dim": 1152,
    "caption_channels": 4096,
    "in_channels": 4,
    "out_channels": 8,
    "sample_size": 64,
    "patch_size": 2,
}
"""Sizes of PixArt-alpha's transformer at 512 px, of which PixArt-Alpha-DMD is one."""
TEXT_TOKENS = 120  # of PixArt, padding included
_IMAGE_TOKENS = 64 * 64  # of FLUX
_LATENT_SIDE = 128
_SCHNELL_TEXT, _KLEIN_TEXT = 256, 512  # tokens, padding included


@dataclass(frozen=True)
class TransformerFlops:
    """FLOPs of one forward pass: before the first block, in each block, after the last one."""

    before: int
    blocks: tuple[int, ...]
    after: int

    @property
    def total(self) -> int:
        """FLOPs from latents to the output."""
        return self.prefix_flops(len(self.blocks)) + self.after

    def prefix_flops(self, blocks: int) -> int:
        """Return the FLOPs up to the hidden state after the first `blocks` blocks."""
        return self.before + sum(self.blocks[:blocks])


@torch.no_grad()
def transformer_flops(split: SplitTransformer[Any, Any, Any], transformer: nn.Module, inputs: Any) -> TransformerFlops:
    """Count a transformer's forward pass block by block."""
    state, num_blocks = split.prefix(transformer, inputs, 0), split.num_blocks(transformer)
    return TransformerFlops(
        before=count_flops(partial(split.prefix, transformer, inputs, 0)),
        blocks=tuple(
            count_flops(partial(split.run_blocks, transformer, state, block, block + 1)) for block in range(num_blocks)
        ),
        after=count_flops(partial(split.suffix, transformer, state, num_blocks)),
    )


def pixart_512_input() -> PixArtInput:
    """Make the inputs of PixArt's transformer for one candidate, on the current default device."""
    side, channels = PIXART_512["sample_size"], PIXART_512["in_channels"]
    return PixArtInput(
        torch.zeros(1, channels, side, side),
        torch.zeros(1, TEXT_TOKENS, PIXART_512["caption_channels"]),
        torch.zeros(1, TEXT_TOKENS),
        torch.zeros(1),
    )


@torch.no_grad()
def pixart_512_block_flops() -> int:
    """Count one block of PixArt-alpha for one candidate; all blocks are alike."""
    with torch.device("meta"):
        transformer = PixArtTransformer2DModel(**PIXART_512)
        state = PixArtSplit().prefix(transformer, pixart_512_input(), 0)
        return count_flops(lambda: PixArtSplit().run_blocks(transformer, state, 0, 1))


@dataclass(frozen=True)
class FluxFlops:
    """FLOPs: `encode` and `decode` once, a forward pass for each step of each candidate."""

    encode: int
    transformer: TransformerFlops
    decode: int


def flux_schnell_flops() -> FluxFlops:
    """Count FLUX.1-schnell: 19 double-stream blocks, then 38 single-stream ones. CLIP's few FLOPs are left out."""
    with torch.device("meta"):
        transformer, autoencoder = FluxTransformer2DModel(), AutoencoderKL(latent_channels=16, **_autoencoder())
        config = transformer.config
        inputs = FluxInput(
            torch.zeros(1, _IMAGE_TOKENS, config.in_channels),
            torch.zeros(1, _SCHNELL_TEXT, config.joint_attention_dim),
            torch.zeros(1, config.pooled_projection_dim),
            torch.zeros(1),
            None,
            torch.zeros(_SCHNELL_TEXT, 3),
            torch.zeros(_IMAGE_TOKENS, 3),
        )
        return FluxFlops(
            _text_flops(T5EncoderModel(_t5_xxl()), _SCHNELL_TEXT),
            transformer_flops(FluxSplit(), transformer, inputs),
            _decoder_flops(autoencoder),
        )


def flux2_klein_flops() -> FluxFlops:
    """Count FLUX.2-klein-4B: 5 double-stream blocks, then 20 single-stream ones."""
    with torch.device("meta"):
        transformer = Flux2Transformer2DModel(
            num_layers=5,
            num_single_layers=20,
            num_attention_heads=24,
            joint_attention_dim=7680,
            guidance_embeds=False,
        )
        config = transformer.config
        inputs = Flux2Input(
            torch.zeros(1, _IMAGE_TOKENS, config.in_channels),
            torch.zeros(1, _KLEIN_TEXT, config.joint_attention_dim),
            torch.zeros(1),
            torch.zeros(_KLEIN_TEXT, 4),
            torch.zeros(_IMAGE_TOKENS, 4),
        )
        return FluxFlops(
            _text_flops(Qwen3ForCausalLM(_qwen3_4b()), _KLEIN_TEXT),
            transformer_flops(Flux2Split(), transformer, inputs),
            _decoder_flops(AutoencoderKLFlux2()),
        )


def _text_flops(model: nn.Module, tokens: int) -> int:
    ids_NL = torch.zeros(1, tokens, dtype=torch.long, device="meta")
    return count_flops(lambda: model(input_ids=ids_NL))


def _decoder_flops(autoencoder: AutoencoderKL | AutoencoderKLFlux2) -> int:
    latents_NCHW = torch.zeros(1, autoencoder.config.latent_channels, _LATENT_SIDE, _LATENT_SIDE)
    return count_flops(lambda: autoencoder.decode(latents_NCHW))


def _autoencoder() -> dict[str, object]:
    return {
        "down_block_types": ("DownEncoderBlock2D",) * 4,
        "up_block_types": ("UpDecoderBlock2D",) * 4,
        "block_out_channels": (128, 256, 512, 512),
        "layers_per_block": 2,
        "use_quant_conv": False,
        "use_post_quant_conv": False,
    }


def _t5_xxl() -> T5Config:
    return T5Config(
        vocab_size=32128,
        d_model=4096,
        d_kv=64,
        d_ff=10240,
        num_layers=24,
        num_heads=64,
        feed_forward_proj="gated-gelu",
        attn_implementation="eager",
    )


def _qwen3_4b() -> Qwen3Config:
    return Qwen3Config(
        vocab_size=151936,
        hidden_size=2560,
        intermediate_size=9728,
        num_hidden_layers=36,
        num_attention_heads=32,
        num_key_value_heads=8,
        head_dim=128,
        attn_implementation="eager",
    )
