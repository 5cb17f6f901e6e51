"""Sizes of pictures, and the way from latents to them, for pipelines that draw sizes they were trained on (bins)."""

from collections.abc import Mapping
from typing import Any

from diffusers.image_processor import PixArtImageProcessor
from PIL.Image import Image
from torch import Tensor

from forejudge.errors import InvalidRequest
from forejudge.generators.base import Architecture, SamplingParams
from forejudge.generators.hooks import execution_device

# FOLDED: Latents of which a transformer itself makes patches, one a token.


def patched_architecture(transformer: Any, num_blocks: int, text_width: int) -> Architecture:
    """Describe a transformer that cuts its latents into patches itself, one patch per token."""
    config = transformer.config
    return Architecture(
        transformer=type(transformer).__name__,
        width=config.num_attention_heads * config.attention_head_dim,
        num_blocks=num_blocks,
        latent_channels=config.in_channels,
        latent_size=config.sample_size // config.patch_size,
        text_width=text_width,
    )


def unpatchify(patches_NTE: Tensor, grid: tuple[int, int], patch_size: int) -> Tensor:
    """A grid of patches, E = patch * patch * C, as (N, C, H, W)."""
    rows, columns = grid
    output = (
        patches_NTE.unflatten(1, (rows, columns)).unflatten(-1, (patch_size, patch_size, -1)).permute(0, 5, 1, 3, 2, 4)
    )
    return output.reshape(len(output), -1, rows * patch_size, columns * patch_size)


Size = tuple[int, int]  # height and width, in pixels


def resolve_image_sizes(
    sampling: SamplingParams, default: int, multiple_of: int, bins: Mapping[str, list[float]] | None
) -> tuple[Size, Size]:
    """The size asked for (a side of `default` where nothing is) and the one to draw: the nearest of `bins`, if any.

    Raises InvalidRequest for a size to draw whose sides are no multiples of `multiple_of`.
    """
    requested = height, width = sampling.height or default, sampling.width or default
    if bins is not None:
        height, width = PixArtImageProcessor.classify_height_width_bin(height, width, ratios=bins)
    if height % multiple_of or width % multiple_of:
        raise InvalidRequest(
            f"a picture of {width} x {height} pixels cannot be drawn: both sides must be multiples of {multiple_of}"
        )
    return requested, (height, width)


def decode_latents(autoencoder: Any, pipeline: Any, scaled_NCHW: Tensor, size: Size) -> tuple[Image, ...]:
    """Latents in the autoencoder's own scale as pictures of a size, resized and cropped where drawn in another.

    The rest of the way is the pipeline's.
    """
    processor, (height, width) = pipeline.image_processor, size
    scaled_NCHW = scaled_NCHW.to(execution_device(autoencoder), autoencoder.dtype)
    images_NCHW = autoencoder.decode(scaled_NCHW, return_dict=False)[0]
    if images_NCHW.shape[-2:] != size:
        images_NCHW = processor.resize_and_crop_tensor(images_NCHW, width, height)
    images = tuple(processor.postprocess(images_NCHW, output_type="pil"))
    pipeline.maybe_free_model_hooks()  # of enable_model_cpu_offload
    return images


# FOLDED: Latents as FLUX's transformers see them: 2 x 2 of them, side by side, are one token.


PATCH_SIZE = 2  # latents a side of a token
DEFAULT_SAMPLE_SIZE = 128  # latents a side of an image, in both of FLUX's pipelines
Grid = tuple[int, int]  # rows and columns of tokens


def packed_architecture(transformer: Any, num_blocks: int) -> Architecture:
    """Describe a transformer of FLUX, which takes PATCH_SIZE x PATCH_SIZE latents packed into each token."""
    config = transformer.config
    return Architecture(
        transformer=type(transformer).__name__,
        width=config.num_attention_heads * config.attention_head_dim,
        num_blocks=num_blocks,
        latent_channels=config.in_channels // PATCH_SIZE**2,
        latent_size=DEFAULT_SAMPLE_SIZE // PATCH_SIZE,
        text_width=config.joint_attention_dim,
    )


def token_grid(pipeline: Any, sampling: SamplingParams) -> Grid:
    """Of the size asked for. Raises InvalidRequest for one whose sides are no whole number of tokens."""
    token_pixels = PATCH_SIZE * pipeline.vae_scale_factor
    default = pipeline.default_sample_size * pipeline.vae_scale_factor
    _, (height, width) = resolve_image_sizes(sampling, default, token_pixels, None)
    return height // token_pixels, width // token_pixels


def image_size(pipeline: Any, grid: Grid) -> tuple[int, int]:
    """Height and width in pixels."""
    token_pixels = PATCH_SIZE * pipeline.vae_scale_factor
    return grid[0] * token_pixels, grid[1] * token_pixels
