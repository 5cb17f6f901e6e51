"""An untrained vision tower and tiny decoders of 2 x, small enough to be made in a moment."""

from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderDC, AutoencoderTiny
from transformers import CLIPImageProcessorPil, CLIPVisionConfig, CLIPVisionModel

from forejudge.verifiers.inputs import InputWeights, PreviewInput


def save_tiny_tower(folder: Path, side: int = 32, patch_size: int = 8) -> Path:
    """Write a vision tower of width 32 and its processor, and return the folder."""
    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 3, "num_attention_heads": 2}
    CLIPVisionModel(CLIPVisionConfig(**sizes, image_size=side, patch_size=patch_size)).save_pretrained(folder)
    size = {"size": {"shortest_edge": side}, "crop_size": {"height": side, "width": side}}
    CLIPImageProcessorPil(**size).save_pretrained(folder)
    return folder


def new_tiny_decoder(channels: int = 4, **changes: Any) -> AutoencoderTiny:
    """Make an AutoencoderTiny whose decoder doubles each side."""
    torch.manual_seed(1)
    decoder = {"decoder_block_out_channels": (8, 8), "num_decoder_blocks": (1, 0)}
    encoder = {"encoder_block_out_channels": (4,), "num_encoder_blocks": (0,)}
    return AutoencoderTiny(latent_channels=channels, **decoder, **encoder, **changes).eval()


def new_lite_decoder(channels: int = 4, **changes: Any) -> AutoencoderDC:
    """Make an AutoencoderDC whose decoder doubles each side."""
    torch.manual_seed(1)
    parts = {
        f"{part}_{name}": value
        for part in ("encoder", "decoder")
        for name, value in {
            "block_types": "ResBlock",
            "block_out_channels": (8, 8),
            "layers_per_block": (0, 1),
            "qkv_multiscales": ((), ()),
        }.items()
    }
    return AutoencoderDC(latent_channels=channels, **parts, **changes).eval()


def save_tiny_preview(folder: Path, channels: int = 4) -> InputWeights:
    """Write a tower and a tiny decoder, and return their folders."""
    new_tiny_decoder(channels).save_pretrained(folder / "tiny")
    return InputWeights(save_tiny_tower(folder / "tower"), folder / "tiny")


def tiny_preview(folder: Path, channels: int = 4) -> PreviewInput:
    """Make the input that sees with them."""
    return PreviewInput.from_name("preview", save_tiny_preview(folder, channels), torch.float32)
