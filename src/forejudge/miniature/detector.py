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
from forejudge.miniature.prompts import FloatMap, match, soft_mask_from_opacity
from forejudge.miniature.scenes import COLOR_NAMES, MAX_RADIUS, MIN_RADIUS, PALETTE

# FOLDED: The blots of one colour in a picture: what stands out from the background, before it is named.
#
# A pixel is explained as a palette colour over the background, more or less opaque. Connected opaque pixels of one
# colour make a region.
#
# Shape letters: H and W pixels, C palette colours (10), X pixels in any arrangement, P pixels in a row.


Mask = NDArray[np.bool_]

_PALETTE_C3 = np.array(list(PALETTE.values()), np.float32)
_MIN_CONTRAST = 0.3  # a colour nearer to the background is not told from it
_MAX_COLOR_ERROR = 0.2  # farther from the whole palette, a colour has no name
_MIN_AREA = 40  # pixels; the smallest object of the world covers 90
_MASK_THRESHOLD = 0.25  # less than half, for blur eats the tips of a star
_SINGLE_COLOR_SHARE = 0.85  # share of a blot's pixels from which on their colour is the blot's


@dataclass(frozen=True)
class Region:
    """Connected pixels of one colour.

    `soft_mask_HW` is their soft outline in [0, 1], `mask_HW` where it is above a quarter; `color` one of COLOUR_NAMES,
    None where the palette has none like it; `opacity` that of the most opaque pixels, in [0, 1].
    """

    mask_HW: Mask
    soft_mask_HW: FloatMap
    color: str | None
    opacity: float


def find_regions(image_HW3: FloatMap) -> list[Region]:
    """The regions of a picture in [0, 1] that are large enough to be an object."""
    offset_HW3, palette_C3 = _relative_to_background(image_HW3)
    color_HW, opacity_HW, _ = _fit_palette(offset_HW3, palette_C3)
    masks = [
        mask for component in _connected_components(opacity_HW > 0.5) for mask in _split_by_color(component, color_HW)
    ]
    occupied_HW = np.any(masks, axis=0) if masks else np.zeros_like(opacity_HW, bool)
    regions = [_measure_region(mask, occupied_HW & ~mask, offset_HW3, palette_C3) for mask in masks]
    return [region for region in regions if region.soft_mask_HW.sum() >= _MIN_AREA]


def _relative_to_background(image_HW3: FloatMap) -> tuple[FloatMap, FloatMap]:
    """The pixels and the palette as differences from the background's colour."""
    pixels_P3 = image_HW3.reshape(-1, 3)
    middle_3 = np.median(pixels_P3, axis=0)
    near_P = np.abs(pixels_P3 - middle_3).max(axis=1) < 0.1
    background_3 = np.median(pixels_P3[near_P], axis=0) if near_P.any() else middle_3
    return image_HW3 - background_3, _PALETTE_C3 - background_3


def _fit_palette(offset_X3: FloatMap, palette_C3: FloatMap) -> tuple[NDArray[np.intp], FloatMap, FloatMap]:
    """For each pixel of any array of them the best colour, its opacity, and the error that is left."""
    squared_C = (palette_C3**2).sum(axis=1)
    projection_XC = offset_X3 @ palette_C3.T
    opacity_XC = np.clip(projection_XC / np.maximum(squared_C, _MIN_CONTRAST**2), 0, 1)
    gain_XC = opacity_XC * (2 * projection_XC - opacity_XC * squared_C)
    color_X1 = gain_XC.argmax(axis=-1)[..., None]
    opacity_X = np.take_along_axis(opacity_XC, color_X1, -1)[..., 0]
    squared_error_X = (offset_X3**2).sum(axis=-1) - gain_XC.max(axis=-1)
    return color_X1[..., 0], opacity_X, np.sqrt(np.maximum(squared_error_X, 0))


def _connected_components(mask_HW: Mask) -> list[Mask]:
    """The connected parts that are large enough to be an object."""
    count, labels_HW, statistics, _ = cv2.connectedComponentsWithStats(mask_HW.astype(np.uint8), connectivity=4)
    areas = statistics[:, cv2.CC_STAT_AREA]
    return [labels_HW == part for part in range(1, count) if areas[part] >= _MIN_AREA]


def _split_by_color(component_HW: Mask, color_HW: NDArray[np.intp]) -> list[Mask]:
    """A blot as it is if nearly all of it has one colour, else its parts of one colour."""
    pixels_C = np.bincount(color_HW[component_HW], minlength=len(COLOR_NAMES))
    if pixels_C.max() >= _SINGLE_COLOR_SHARE * pixels_C.sum():
        return [component_HW]
    large = np.flatnonzero(pixels_C >= _MIN_AREA)
    return [part for color in large for part in _connected_components(component_HW & (color_HW == color))]


def _measure_region(component_HW: Mask, others_HW: Mask, offset_HW3: FloatMap, palette_C3: FloatMap) -> Region:
    inside_P3 = offset_HW3[component_HW]
    strength_P = np.linalg.norm(inside_P3, axis=1)
    core_3 = np.median(inside_P3[strength_P >= np.quantile(strength_P, 0.6)], axis=0)
    color, opacity, error = _fit_palette(core_3, palette_C3)
    near_HW = cv2.dilate(component_HW.astype(np.uint8), np.ones((3, 3), np.uint8), iterations=2)
    relative_HW = offset_HW3 @ (core_3 / (core_3 @ core_3))
    soft_mask_HW = soft_mask_from_opacity(relative_HW * near_HW * ~others_HW)
    name = COLOR_NAMES[int(color)] if error < _MAX_COLOR_ERROR else None
    return Region(soft_mask_HW > _MASK_THRESHOLD, soft_mask_HW, name, float(opacity))


_MIN_CONFIDENCE = 0.05  # below, a region is not worth reporting


@dataclass(frozen=True)
class _Evidence:
    """How a measured value speaks for an object: log odds 0 at `midpoint`, growing by `slope` per unit."""

    midpoint: float
    slope: float

    def log_odds(self, value: float) -> float:
        return self.slope * (value - self.midpoint)


# Rendered objects, blurred, noisy and off in colour too, have an error under 0.04, a lead over 0.09 and an opacity
# over 0.8; worn by an autoencoder but plain to the eye, an error under 0.06 and a lead over 0.05. Half an object, or
# two outlines in one, has an error of 0.07 to 0.12 or a lead of 0.02; a ghost of half opacity shows 0.5.
_ERROR = _Evidence(midpoint=0.07, slope=200)
_MARGIN = _Evidence(midpoint=0.025, slope=88)
_OPACITY = _Evidence(midpoint=0.66, slope=20)
_LARGE_ENOUGH = _Evidence(midpoint=MIN_RADIUS - 1.2, slope=3.5)
_TOO_LARGE = _Evidence(midpoint=MAX_RADIUS + 3, slope=2)


def detect(image: Image.Image | NDArray[np.uint8]) -> list[Detection]:
    """The objects in a picture, most confident first.

    `image` is a PIL image or an (H, W, 3) array of bytes, its objects about as large as the world draws them. What
    has a confidence above 0.9 is plain to see, below 0.3 there is no object; between, one would hesitate.
    InvalidRequest where an array is no such picture.
    """
    detections = [_detection_from_region(region) for region in find_regions(_pixels(image))]
    reported = [detection for detection in detections if detection.confidence > _MIN_CONFIDENCE]
    return sorted(reported, key=lambda detection: -detection.confidence)


def _pixels(image: Image.Image | NDArray[np.uint8]) -> FloatMap:
    """(H, W, 3) in [0, 1]"""
    pixels = np.asarray(image.convert("RGB") if isinstance(image, Image.Image) else image)
    if pixels.ndim != 3 or pixels.shape[2] != 3 or pixels.dtype != np.uint8 or not pixels.size:
        raise InvalidRequest(
            f"got a picture of shape {pixels.shape} and type {pixels.dtype}, expected (height, width, 3) and uint8; "
            "give a PIL image or an array of bytes"
        )
    return np.divide(pixels, 255, dtype=np.float32)


def _detection_from_region(region: Region) -> Detection:
    best_match = match(region.soft_mask_HW)
    weakest = min(
        -_ERROR.log_odds(best_match.error),
        _MARGIN.log_odds(best_match.margin),
        _OPACITY.log_odds(region.opacity),
        _LARGE_ENOUGH.log_odds(best_match.radius),
        -_TOO_LARGE.log_odds(best_match.radius),
    )
    confidence = (1 + math.tanh(weakest / 2)) / 2
    return Detection(best_match.kind, _box(region.mask_HW), confidence, region.color, region.mask_HW)


def _box(mask_HW: Mask) -> Box:
    x, y, width, height = cv2.boundingRect(mask_HW.astype(np.uint8))
    return (float(x), float(y), float(x + width), float(y + height))
