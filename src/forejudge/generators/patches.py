"""Latents of which a transformer itself makes patches, one a token."""

from typing import Any

from torch import Tensor

from forejudge.generators.base import Architecture


def patched_architecture(transformer: Any, text_width: int) -> Architecture:
    """Of a transformer with blocks of one kind, whose text is `text_width` wide."""
    config = transformer.config
    return Architecture(
        transformer=type(transformer).__name__,
        width=config.num_attention_heads * config.attention_head_dim,
        num_blocks=config.num_layers,
        latent_channels=config.in_channels,
        latent_size=config.sample_size // config.patch_size,
        text_width=text_width,
    )


def unpatchified(patches_NTE: Tensor, grid: tuple[int, int], patch: int) -> Tensor:
    """A grid of patches, E = patch * patch * C, as (N, C, H, W)."""
    rows, columns = grid
    output = patches_NTE.unflatten(1, (rows, columns)).unflatten(-1, (patch, patch, -1)).permute(0, 5, 1, 3, 2, 4)
    return output.reshape(len(output), -1, rows * patch, columns * patch)
