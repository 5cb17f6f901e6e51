"""Sizes of pictures, and the way from latents to them, for pipelines that draw sizes they were trained on (bins)."""

from collections.abc import Mapping
from typing import Any

from diffusers.image_processor import PixArtImageProcessor
from PIL.Image import Image
from torch import Tensor

from forejudge.errors import InvalidRequest
from forejudge.generators.base import Sampling

Size = tuple[int, int]  # height and width, in pixels


def picture_sizes(
    sampling: Sampling, default: int, unit: int, bins: Mapping[str, list[float]] | None
) -> tuple[Size, Size]:
    """The size asked for (a side of `default` where nothing is) and the one to draw: the nearest of `bins`, if any.

    Raises InvalidRequest for a size to draw whose sides are no multiples of `unit`.
    """
    asked = height, width = sampling.height or default, sampling.width or default
    if bins is not None:
        height, width = PixArtImageProcessor.classify_height_width_bin(height, width, ratios=bins)
    if height % unit or width % unit:
        raise InvalidRequest(
            f"a picture of {width} x {height} pixels cannot be drawn: both sides must be multiples of {unit}"
        )
    return asked, (height, width)


def decoded(pipeline: Any, latents_NCHW: Tensor, size: Size) -> tuple[Image, ...]:
    """Latents as pictures of a size, resized and cropped where they were drawn in another."""
    scaled_NCHW = latents_NCHW / pipeline.vae.config.scaling_factor
    decoded_NCHW = pipeline.vae.decode(scaled_NCHW, return_dict=False)[0]
    processor, (height, width) = pipeline.image_processor, size
    if decoded_NCHW.shape[-2:] != size:
        decoded_NCHW = processor.resize_and_crop_tensor(decoded_NCHW, width, height)
    pictures = tuple(processor.postprocess(decoded_NCHW, output_type="pil"))
    pipeline.maybe_free_model_hooks()  # of enable_model_cpu_offload
    return pictures
