"""Latents: how they form tokens, the image sizes they can have, and decoding them.

SANA, PixArt and SD3 cut latents into patches inside their transformer, one patch per token. FLUX packs
PATCH_SIZE x PATCH_SIZE latents into each token before it. E is the width of a patch, patch * patch * C.
"""

from collections.abc import Mapping
from typing import Any

from diffusers.image_processor import PixArtImageProcessor
from PIL.Image import Image
from torch import Tensor

from forejudge.errors import InvalidRequest
from forejudge.generators.base import Architecture, SamplingParams
from forejudge.generators.hooks import execution_device
from forejudge.types import Grid

PATCH_SIZE = 2  # of FLUX, in latents a side
DEFAULT_SAMPLE_SIZE = 128  # latents a side of an image, in both of FLUX's pipelines

Size = tuple[int, int]  # height and width, in pixels


def patched_architecture(transformer: Any, num_blocks: int, text_width: int) -> Architecture:
    """Describe a transformer that cuts its latents into patches itself."""
    config = transformer.config
    return Architecture(
        transformer=type(transformer).__name__,
        width=config.num_attention_heads * config.attention_head_dim,
        num_blocks=num_blocks,
        latent_channels=config.in_channels,
        latent_size=config.sample_size // config.patch_size,
        text_width=text_width,
    )


def packed_architecture(transformer: Any, num_blocks: int) -> Architecture:
    """Describe a transformer of FLUX, which takes packed latents."""
    config = transformer.config
    return Architecture(
        transformer=type(transformer).__name__,
        width=config.num_attention_heads * config.attention_head_dim,
        num_blocks=num_blocks,
        latent_channels=config.in_channels // PATCH_SIZE**2,
        latent_size=DEFAULT_SAMPLE_SIZE // PATCH_SIZE,
        text_width=config.joint_attention_dim,
    )


def patch_grid(transformer: Any, latent_shape: tuple[int, int, int]) -> Grid:
    """Return the grid of patches that a transformer cuts latents (C, H, W) into."""
    _, height, width = latent_shape
    return height // transformer.config.patch_size, width // transformer.config.patch_size


def unpatchify(patches_NTE: Tensor, grid: Grid, patch_size: int) -> Tensor:
    """Rearrange a grid of patches into latents (N, C, H, W)."""
    rows, columns = grid
    output = (
        patches_NTE.unflatten(1, (rows, columns)).unflatten(-1, (patch_size, patch_size, -1)).permute(0, 5, 1, 3, 2, 4)
    )
    return output.reshape(len(output), -1, rows * patch_size, columns * patch_size)


def resolve_image_sizes(
    sampling: SamplingParams, default: int, multiple_of: int, bins: Mapping[str, list[float]] | None
) -> tuple[Size, Size]:
    """Return the requested size, with sides of `default` if there is none, and the size to generate.

    The latter is the nearest of `bins`, if any. Raises InvalidRequest if its sides are no multiples of `multiple_of`.
    """
    requested = height, width = sampling.height or default, sampling.width or default
    if bins is not None:
        height, width = PixArtImageProcessor.classify_height_width_bin(height, width, ratios=bins)
    if height % multiple_of or width % multiple_of:
        raise InvalidRequest(
            f"an image of {width} x {height} pixels cannot be generated: both sides must be multiples of {multiple_of}"
        )
    return requested, (height, width)


def token_grid(pipeline: Any, sampling: SamplingParams) -> Grid:
    """Return the grid of FLUX's tokens for the requested size. Raises InvalidRequest if that is no whole number."""
    token_pixels = PATCH_SIZE * pipeline.vae_scale_factor
    default = pipeline.default_sample_size * pipeline.vae_scale_factor
    _, (height, width) = resolve_image_sizes(sampling, default, token_pixels, None)
    return height // token_pixels, width // token_pixels


def image_size(pipeline: Any, grid: Grid) -> Size:
    """Return the size of the image that a grid of FLUX's tokens makes."""
    token_pixels = PATCH_SIZE * pipeline.vae_scale_factor
    return grid[0] * token_pixels, grid[1] * token_pixels


def decode_latents(autoencoder: Any, pipeline: Any, scaled_NCHW: Tensor, size: Size) -> tuple[Image | None, ...]:
    """Decode latents in the autoencoder's own scale; images of another size are resized and cropped to `size`.

    None stands for an image that is not finite, in its latents or decoded. The steps after the autoencoder are the
    pipeline's.
    """
    processor, (height, width) = pipeline.image_processor, size
    scaled_NCHW = scaled_NCHW.to(execution_device(autoencoder), autoencoder.dtype)
    images_NCHW = autoencoder.decode(scaled_NCHW, return_dict=False)[0]
    is_finite_N = scaled_NCHW.isfinite().flatten(1).all(1) & images_NCHW.isfinite().flatten(1).all(1)
    if images_NCHW.shape[-2:] != size:
        images_NCHW = processor.resize_and_crop_tensor(images_NCHW, width, height)
    images = processor.postprocess(images_NCHW.nan_to_num(), output_type="pil")
    pipeline.maybe_free_model_hooks()  # for enable_model_cpu_offload
    if is_finite_N.is_meta:  # FLOPs are counted without values
        return tuple(images)
    return tuple(image if is_finite else None for image, is_finite in zip(images, is_finite_N.tolist(), strict=True))
