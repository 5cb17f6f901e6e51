"""Sizes of pictures, and the way from latents to them, for pipelines that draw sizes they were trained on (bins)."""

from collections.abc import Mapping
from typing import Any

from diffusers.image_processor import PixArtImageProcessor
from PIL.Image import Image
from torch import Tensor

from forejudge.errors import InvalidRequest
from forejudge.generators.base import Sampling
from forejudge.generators.forward_context import execution_device

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


def decoded(autoencoder: Any, pipeline: Any, scaled_NCHW: Tensor, size: Size) -> tuple[Image, ...]:
    """Latents in the autoencoder's own scale as pictures of a size, resized and cropped where drawn in another.

    The rest of the way is the pipeline's.
    """
    processor, (height, width) = pipeline.image_processor, size
    scaled_NCHW = scaled_NCHW.to(execution_device(autoencoder), autoencoder.dtype)
    decoded_NCHW = autoencoder.decode(scaled_NCHW, return_dict=False)[0]
    if decoded_NCHW.shape[-2:] != size:
        decoded_NCHW = processor.resize_and_crop_tensor(decoded_NCHW, width, height)
    pictures = tuple(processor.postprocess(decoded_NCHW, output_type="pil"))
    pipeline.maybe_free_model_hooks()  # of enable_model_cpu_offload
    return pictures
