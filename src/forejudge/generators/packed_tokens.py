"""Latents as FLUX's transformers see them: 2 x 2 of them, side by side, are one token."""

from typing import Any

from forejudge.generators.base import Architecture, Sampling
from forejudge.generators.pictures import picture_sizes

PATCH = 2  # latents a side of a token
Grid = tuple[int, int]  # rows and columns of tokens


def packed_architecture(pipeline: Any) -> Architecture:
    """Of a pipeline whose transformer has double-stream and then single-stream blocks, counted through both."""
    config = pipeline.transformer.config
    return Architecture(
        transformer=type(pipeline.transformer).__name__,
        width=config.num_attention_heads * config.attention_head_dim,
        num_blocks=config.num_layers + config.num_single_layers,
        latent_channels=config.in_channels // PATCH**2,
        latent_size=pipeline.default_sample_size // PATCH,
        text_width=config.joint_attention_dim,
    )


def token_grid(pipeline: Any, sampling: Sampling) -> Grid:
    """Of the size asked for. Raises InvalidRequest for one whose sides are no whole number of tokens."""
    token = PATCH * pipeline.vae_scale_factor
    default = pipeline.default_sample_size * pipeline.vae_scale_factor
    _, (height, width) = picture_sizes(sampling, default, token, None)
    return height // token, width // token


def picture_size(pipeline: Any, grid: Grid) -> tuple[int, int]:
    """Height and width in pixels."""
    token = PATCH * pipeline.vae_scale_factor
    return grid[0] * token, grid[1] * token
