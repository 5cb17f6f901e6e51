"""Detector of the miniature world's objects, with no learned weights.

1. Regions: a pixel is explained as a palette color over the background, more or less opaque; connected opaque pixels of
   one color make a region.
2. Matching: a region's soft outline is moved to its center of mass and scaled to a common area, so that only its shape
   is left to compare with a bank of templates, rendered by the world's own renderer and normalized in the same way.
3. Confidence: the outline, its margin over the second kind, the opacity and the size are evidence for an object, and
   the weakest piece decides: a ghost of perfect outline is as little an object as a solid blob.

Shape letters: H and W pixels, C palette colors (10), X pixels in any arrangement, P pixels in a row or templates, K
kinds, G cells of the normalized frame (24 x 24, flattened).
"""

import math
from dataclasses import dataclass
from functools import lru_cache
from itertools import product

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from forejudge.errors import InvalidRequest
from forejudge.evaluators.geneval_rules import Box, Detection
from forejudge.miniature.scenes import (
    COLOR_NAMES,
    IMAGE_SIZE,
    KINDS,
    MAX_RADIUS,
    MIN_RADIUS,
    PALETTE,
    SceneBatch,
    coverage,
)

FloatMap = NDArray[np.float32]
Mask = NDArray[np.bool_]

_MIN_CONFIDENCE = 0.05  # below, a region is not reported

_PALETTE_C3 = np.array(list(PALETTE.values()), np.float32)
_MIN_CONTRAST = 0.3  # a color nearer to the background cannot be told from it
_MAX_COLOR_ERROR = 0.2  # farther from the whole palette, a color has no name
_MIN_AREA = 40  # pixels; the smallest object of the world covers 90
_MASK_THRESHOLD = 0.25  # less than half, because blur eats the tips of a star
_SINGLE_COLOR_SHARE = 0.85  # share of a component's pixels from which on their color is the component's

_SIDE = 24
_SPAN = 1.15  # half the frame's side, in square roots of the outline's area
_RADII = (MIN_RADIUS, (MIN_RADIUS + MAX_RADIUS) / 2, MAX_RADIUS)
_OFFSETS = (0.0, 1 / 3, 2 / 3)  # of the center on the pixel grid
_BLUR = 0.8  # pixels; the bank holds each outline sharp and blurred


@dataclass(frozen=True)
class _Evidence:
    """Evidence of a measured value for an object: log odds 0 at `midpoint`, growing by `slope` per unit."""

    midpoint: float
    slope: float

    def log_odds(self, value: float) -> float:
        return self.slope * (value - self.midpoint)


# Rendered objects, also blurred, noisy and off in color, have an error under 0.04, a margin over 0.09 and an opacity
# over 0.8; degraded by an autoencoder but clear to the eye, an error under 0.06 and a margin over 0.05. Half an object,
# or two outlines in one, has an error of 0.07 to 0.12 or a margin of 0.02; a ghost of half opacity shows 0.5.
_ERROR = _Evidence(midpoint=0.07, slope=200)
_MARGIN = _Evidence(midpoint=0.025, slope=88)
_OPACITY = _Evidence(midpoint=0.66, slope=20)
_LARGE_ENOUGH = _Evidence(midpoint=MIN_RADIUS - 1.2, slope=3.5)
_TOO_LARGE = _Evidence(midpoint=MAX_RADIUS + 3, slope=2)


def detect(image: Image.Image | NDArray[np.uint8]) -> list[Detection]:
    """Detect the objects in an image, most confident first.

    `image` is a PIL image or an (H, W, 3) array of bytes, with objects about as large as the renderer makes them. A
    confidence above 0.9 is clear to see, below 0.3 there is no object; between, a person would hesitate. Raises
    InvalidRequest for any other array.
    """
    detections = [_detection_from_region(region) for region in find_regions(_pixels(image))]
    reported = [detection for detection in detections if detection.confidence > _MIN_CONFIDENCE]
    return sorted(reported, key=lambda detection: -detection.confidence)


def _pixels(image: Image.Image | NDArray[np.uint8]) -> FloatMap:
    """Return the pixels as (H, W, 3) in [0, 1]."""
    pixels = np.asarray(image.convert("RGB") if isinstance(image, Image.Image) else image)
    if pixels.ndim != 3 or pixels.shape[2] != 3 or pixels.dtype != np.uint8 or not pixels.size:
        raise InvalidRequest(
            f"got an image of shape {pixels.shape} and type {pixels.dtype}, expected (height, width, 3) and uint8; "
            "give a PIL image or an array of bytes"
        )
    return np.divide(pixels, 255, dtype=np.float32)


def _detection_from_region(region: "Region") -> Detection:
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


@dataclass(frozen=True)
class Region:
    """Connected pixels of one color.

    `soft_mask_HW` is their soft outline in [0, 1], `mask_HW` where it is above a quarter. `color` is one of
    COLOR_NAMES, None where the palette has none like it; `opacity` is that of the most opaque pixels, in [0, 1].
    """

    mask_HW: Mask
    soft_mask_HW: FloatMap
    color: str | None
    opacity: float


def find_regions(image_HW3: FloatMap) -> list[Region]:
    """Find the regions of an image in [0, 1] that are large enough to be an object."""
    offset_HW3, palette_C3 = _relative_to_background(image_HW3)
    color_HW, opacity_HW, _ = _fit_palette(offset_HW3, palette_C3)
    masks = [
        mask for component in _connected_components(opacity_HW > 0.5) for mask in _split_by_color(component, color_HW)
    ]
    occupied_HW = np.any(masks, axis=0) if masks else np.zeros_like(opacity_HW, bool)
    regions = [_measure_region(mask, occupied_HW & ~mask, offset_HW3, palette_C3) for mask in masks]
    return [region for region in regions if region.soft_mask_HW.sum() >= _MIN_AREA]


def _relative_to_background(image_HW3: FloatMap) -> tuple[FloatMap, FloatMap]:
    """Return the pixels and the palette as differences from the background's color."""
    pixels_P3 = image_HW3.reshape(-1, 3)
    middle_3 = np.median(pixels_P3, axis=0)
    near_P = np.abs(pixels_P3 - middle_3).max(axis=1) < 0.1
    background_3 = np.median(pixels_P3[near_P], axis=0) if near_P.any() else middle_3
    return image_HW3 - background_3, _PALETTE_C3 - background_3


def _fit_palette(offset_X3: FloatMap, palette_C3: FloatMap) -> tuple[NDArray[np.intp], FloatMap, FloatMap]:
    """Return the best color of each pixel, its opacity, and the remaining error, each of shape (X,)."""
    squared_C = (palette_C3**2).sum(axis=1)
    projection_XC = offset_X3 @ palette_C3.T
    opacity_XC = np.clip(projection_XC / np.maximum(squared_C, _MIN_CONTRAST**2), 0, 1)
    gain_XC = opacity_XC * (2 * projection_XC - opacity_XC * squared_C)
    color_X1 = gain_XC.argmax(axis=-1)[..., None]
    opacity_X = np.take_along_axis(opacity_XC, color_X1, -1)[..., 0]
    squared_error_X = (offset_X3**2).sum(axis=-1) - gain_XC.max(axis=-1)
    return color_X1[..., 0], opacity_X, np.sqrt(np.maximum(squared_error_X, 0))


def _connected_components(mask_HW: Mask) -> list[Mask]:
    """Return the connected parts that are large enough to be an object."""
    count, labels_HW, statistics, _ = cv2.connectedComponentsWithStats(mask_HW.astype(np.uint8), connectivity=4)
    areas = statistics[:, cv2.CC_STAT_AREA]
    return [labels_HW == part for part in range(1, count) if areas[part] >= _MIN_AREA]


def _split_by_color(component_HW: Mask, color_HW: NDArray[np.intp]) -> list[Mask]:
    """Return a component whole if nearly all of it has one color, else its parts of one color."""
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


def soft_mask_from_opacity(opacity: FloatMap) -> FloatMap:
    """Map opacity to a soft mask in [0, 1]: faint pixels count as nothing, nearly opaque ones in full."""
    return np.clip((opacity - 0.3) / 0.4, 0, 1).astype(np.float32)


@dataclass(frozen=True)
class Match:
    """Most similar kind of an outline.

    `margin` is the excess of its overlap (soft intersection over union) over that of the second kind, `radius` the
    object's size in pixels, `error` the mean distance of the outline from the kind's own, over the radius.
    """

    kind: str
    margin: float
    radius: float
    error: float


def match(soft_mask_HW: FloatMap) -> Match:
    """Compare a soft outline, which must not be empty, with all kinds."""
    bank = _bank()
    cells_G, cell = _normalize(soft_mask_HW)
    intersection_P = np.minimum(bank.templates_PG, cells_G).sum(axis=1)
    total_P = bank.areas_P + cells_G.sum()
    iou_K = (intersection_P / (total_P - intersection_P)).reshape(len(KINDS), -1).max(axis=1)
    mismatch_K = ((total_P - 2 * intersection_P) / bank.lengths_P).reshape(len(KINDS), -1).min(axis=1)
    second, first = np.argsort(iou_K)[-2:]
    radius = math.sqrt(soft_mask_HW.sum() / bank.unit_areas_K[first])
    margin = float(iou_K[first] - iou_K[second])
    return Match(KINDS[first], margin, radius, error=float(mismatch_K[first]) * cell / radius)


def _normalize(soft_mask_HW: FloatMap) -> tuple[FloatMap, float]:
    """Return a soft outline in the common frame, (G,) in [0, 1], and the size of the frame's cell in pixels."""
    moments = cv2.moments(soft_mask_HW)
    area = moments["m00"]
    cell = 2 * _SPAN * math.sqrt(area) / _SIDE
    corner = -cell * (_SIDE - 1) / 2
    x, y = moments["m10"] / area + corner, moments["m01"] / area + corner
    to_source = np.array([[cell, 0, x], [0, cell, y]])
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    moved = cv2.warpAffine(soft_mask_HW, to_source, (_SIDE, _SIDE), flags=flags)
    return np.asarray(moved, np.float32).reshape(-1), cell


@dataclass(frozen=True)
class _Bank:
    """Templates, kind by kind: their cells, areas and outline lengths; and each kind's area at radius 1."""

    templates_PG: FloatMap
    areas_P: FloatMap
    lengths_P: FloatMap
    unit_areas_K: FloatMap


@lru_cache(maxsize=1)
def _bank() -> _Bank:
    soft_masks = _render_templates()
    templates_PG = np.array(
        [_normalize(soft_mask_from_opacity(each))[0] for kind in soft_masks for each in _with_blurred(kind)]
    )
    slopes = np.gradient(templates_PG.reshape(-1, _SIDE, _SIDE), axis=(1, 2))
    radii = np.array([radius for radius, _, _ in _variants()], np.float32)
    return _Bank(
        templates_PG=templates_PG,
        areas_P=templates_PG.sum(axis=1),
        lengths_P=np.hypot(*slopes).sum(axis=(1, 2)),
        unit_areas_K=(soft_masks.sum(axis=(2, 3)) / radii**2).mean(axis=1),
    )


def _with_blurred(soft_masks: FloatMap) -> list[FloatMap]:
    soft = [np.asarray(cv2.GaussianBlur(soft_mask, (0, 0), _BLUR)) for soft_mask in soft_masks]
    return [*soft_masks, *soft]


def _variants() -> list[tuple[float, float, float]]:
    """Return (radius, x offset, y offset) of every template of a kind."""
    return list(product(_RADII, _OFFSETS, _OFFSETS))


def _render_templates() -> FloatMap:
    """Render every kind in every variant: (K, variants, H, W)."""
    rendered = list(product(range(len(KINDS)), _variants()))
    middle = IMAGE_SIZE / 2
    centers = [[[middle + x, middle + y]] for _, (_, x, y) in rendered]
    scenes = SceneBatch(
        kind_NK=torch.tensor([[kind] for kind, _ in rendered]),
        color_NK=torch.zeros(len(rendered), 1, dtype=torch.long),
        center_NK2=torch.tensor(centers),
        radius_NK=torch.tensor([[radius] for _, (radius, _, _) in rendered]),
        present_NK=torch.ones(len(rendered), 1, dtype=torch.bool),
        background_N=torch.zeros(len(rendered)),
    )
    return coverage(scenes, slot=0).unflatten(0, (len(KINDS), -1)).numpy()
