"""A function as users write one: a score for each image."""

from collections.abc import Sequence

from PIL.Image import Image


def first_pixel(prompt: str, images: Sequence[Image]) -> list[float]:
    """How red the first pixel is."""
    return [image.convert("RGB").tobytes()[0] for image in images]
