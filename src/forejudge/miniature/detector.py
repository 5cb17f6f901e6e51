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
from forejudge.evaluators.geneval_rules import Box, Detection
from forejudge.miniature.prompts import Map, cover_of, match
from forejudge.miniature.scenes import COLOUR_NAMES, COLOURS, LARGEST_RADIUS, SMALLEST_RADIUS

# FOLDED: The blots of one colour in a picture: what stands out from the background, before it is named.
#
# A pixel is explained as a palette colour over the background, more or less opaque. Connected opaque pixels of one
# colour make a region.
#
# Shape letters: H and W pixels, C palette colours (10), X pixels in any arrangement, P pixels in a row.


Mask = NDArray[np.bool_]

_PALETTE_C3 = np.array(list(COLOURS.values()), np.float32)
_LEAST_CONTRAST = 0.3  # a colour nearer to the background is not told from it
_LARGEST_COLOUR_ERROR = 0.2  # farther from the whole palette, a colour has no name
_LEAST_AREA = 40  # pixels; the smallest object of the world covers 90
_MASK_COVER = 0.25  # less than half, for blur eats the tips of a star
_ONE_COLOUR = 0.85  # share of a blot's pixels from which on their colour is the blot's


@dataclass(frozen=True)
class Region:
    """Connected pixels of one colour.

    `cover_HW` is their soft outline in [0, 1], `mask_HW` where it is above a quarter; `colour` one of COLOUR_NAMES,
    None where the palette has none like it; `opacity` that of the most opaque pixels, in [0, 1].
    """

    mask_HW: Mask
    cover_HW: Map
    colour: str | None
    opacity: float


def find_regions(picture_HW3: Map) -> list[Region]:
    """The regions of a picture in [0, 1] that are large enough to be an object."""
    offset_HW3, axis_C3 = _seen_from_background(picture_HW3)
    colour_HW, opacity_HW, _ = _explain(offset_HW3, axis_C3)
    masks = [mask for blot in _connected(opacity_HW > 0.5) for mask in _by_colour(blot, colour_HW)]
    taken_HW = np.any(masks, axis=0) if masks else np.zeros_like(opacity_HW, bool)
    regions = [_region(mask, taken_HW & ~mask, offset_HW3, axis_C3) for mask in masks]
    return [region for region in regions if region.cover_HW.sum() >= _LEAST_AREA]


def _seen_from_background(picture_HW3: Map) -> tuple[Map, Map]:
    """The pixels and the palette as differences from the background's colour."""
    pixels_P3 = picture_HW3.reshape(-1, 3)
    middle_3 = np.median(pixels_P3, axis=0)
    near_P = np.abs(pixels_P3 - middle_3).max(axis=1) < 0.1
    background_3 = np.median(pixels_P3[near_P], axis=0) if near_P.any() else middle_3
    return picture_HW3 - background_3, _PALETTE_C3 - background_3


def _explain(offset_X3: Map, axis_C3: Map) -> tuple[NDArray[np.intp], Map, Map]:
    """For each pixel of any array of them the best colour, its opacity, and the error that is left."""
    squared_C = (axis_C3**2).sum(axis=1)
    along_XC = offset_X3 @ axis_C3.T
    opacity_XC = np.clip(along_XC / np.maximum(squared_C, _LEAST_CONTRAST**2), 0, 1)
    gain_XC = opacity_XC * (2 * along_XC - opacity_XC * squared_C)
    colour_X1 = gain_XC.argmax(axis=-1)[..., None]
    opacity_X = np.take_along_axis(opacity_XC, colour_X1, -1)[..., 0]
    squared_error_X = (offset_X3**2).sum(axis=-1) - gain_XC.max(axis=-1)
    return colour_X1[..., 0], opacity_X, np.sqrt(np.maximum(squared_error_X, 0))


def _connected(mask_HW: Mask) -> list[Mask]:
    """The connected parts that are large enough to be an object."""
    count, labels_HW, statistics, _ = cv2.connectedComponentsWithStats(mask_HW.astype(np.uint8), connectivity=4)
    areas = statistics[:, cv2.CC_STAT_AREA]
    return [labels_HW == part for part in range(1, count) if areas[part] >= _LEAST_AREA]


def _by_colour(blot_HW: Mask, colour_HW: NDArray[np.intp]) -> list[Mask]:
    """A blot as it is if nearly all of it has one colour, else its parts of one colour."""
    pixels_C = np.bincount(colour_HW[blot_HW], minlength=len(COLOUR_NAMES))
    if pixels_C.max() >= _ONE_COLOUR * pixels_C.sum():
        return [blot_HW]
    large = np.flatnonzero(pixels_C >= _LEAST_AREA)
    return [part for colour in large for part in _connected(blot_HW & (colour_HW == colour))]


def _region(blot_HW: Mask, others_HW: Mask, offset_HW3: Map, axis_C3: Map) -> Region:
    inside_P3 = offset_HW3[blot_HW]
    strength_P = np.linalg.norm(inside_P3, axis=1)
    core_3 = np.median(inside_P3[strength_P >= np.quantile(strength_P, 0.6)], axis=0)
    colour, opacity, error = _explain(core_3, axis_C3)
    near_HW = cv2.dilate(blot_HW.astype(np.uint8), np.ones((3, 3), np.uint8), iterations=2)
    relative_HW = offset_HW3 @ (core_3 / (core_3 @ core_3))
    cover_HW = cover_of(relative_HW * near_HW * ~others_HW)
    name = COLOUR_NAMES[int(colour)] if error < _LARGEST_COLOUR_ERROR else None
    return Region(cover_HW > _MASK_COVER, cover_HW, name, float(opacity))


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
