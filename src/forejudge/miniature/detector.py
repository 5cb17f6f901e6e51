"""Reads the objects back out of a picture of the miniature world, with no learned weights.

A region's outline, its lead over the second likeliest kind, its opacity and its size are the evidence that it is an
object. The weakest piece decides: a ghost of perfect outline is as little an object as a solid blot.
"""

import math
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from forejudge.errors import InvalidRequest
from forejudge.evaluation.detection import Box, Detection
from forejudge.miniature.coupling import LARGEST_RADIUS, SMALLEST_RADIUS
from forejudge.miniature.regions import Mask, Region, find_regions
from forejudge.miniature.templates import Map, match

_LEAST_CONFIDENCE = 0.05  # below, a region is not worth reporting


@dataclass(frozen=True)
class _Evidence:
    """How a measured value speaks for an object: log odds 0 at `even`, growing by `slope` per unit."""

    even: float
    slope: float

    def log_odds(self, value: float) -> float:
        return self.slope * (value - self.even)


# Rendered objects, blurred, noisy and off in colour too, have an error under 0.04, a lead over 0.09 and an opacity
# over 0.8; worn by an autoencoder but plain to the eye, an error under 0.06 and a lead over 0.05. Half an object, or
# two outlines in one, has an error of 0.07 to 0.12 or a lead of 0.02; a ghost of half opacity shows 0.5.
_ERROR = _Evidence(even=0.07, slope=200)
_LEAD = _Evidence(even=0.025, slope=88)
_OPACITY = _Evidence(even=0.66, slope=20)
_LARGE_ENOUGH = _Evidence(even=SMALLEST_RADIUS - 1.2, slope=3.5)
_TOO_LARGE = _Evidence(even=LARGEST_RADIUS + 3, slope=2)


def detect(picture: Image.Image | NDArray[np.uint8]) -> list[Detection]:
    """The objects in a picture, most confident first.

    `picture` is a PIL image or an (H, W, 3) array of bytes, its objects about as large as the world draws them. What
    has a confidence above 0.9 is plain to see, below 0.3 there is no object; between, one would hesitate.
    InvalidRequest where an array is no such picture.
    """
    found = [_judge(region) for region in find_regions(_pixels(picture))]
    reported = [detection for detection in found if detection.confidence > _LEAST_CONFIDENCE]
    return sorted(reported, key=lambda detection: -detection.confidence)


def _pixels(picture: Image.Image | NDArray[np.uint8]) -> Map:
    """(H, W, 3) in [0, 1]"""
    pixels = np.asarray(picture.convert("RGB") if isinstance(picture, Image.Image) else picture)
    if pixels.ndim != 3 or pixels.shape[2] != 3 or pixels.dtype != np.uint8 or not pixels.size:
        raise InvalidRequest(
            f"got a picture of shape {pixels.shape} and type {pixels.dtype}, expected (height, width, 3) and uint8; "
            "give a PIL image or an array of bytes"
        )
    return np.divide(pixels, 255, dtype=np.float32)


def _judge(region: Region) -> Detection:
    found = match(region.cover_HW)
    weakest = min(
        -_ERROR.log_odds(found.error),
        _LEAD.log_odds(found.lead),
        _OPACITY.log_odds(region.opacity),
        _LARGE_ENOUGH.log_odds(found.radius),
        -_TOO_LARGE.log_odds(found.radius),
    )
    confidence = (1 + math.tanh(weakest / 2)) / 2
    return Detection(found.kind, _box(region.mask_HW), confidence, region.colour, region.mask_HW)


def _box(mask_HW: Mask) -> Box:
    x, y, width, height = cv2.boundingRect(mask_HW.astype(np.uint8))
    return (float(x), float(y), float(x + width), float(y + height))
