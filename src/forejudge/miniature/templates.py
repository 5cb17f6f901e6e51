"""What each kind looks like in a normalised frame, and how alike an outline is to it.

A soft outline is moved to its centre of mass and scaled to the same area, so that place and size drop out and only
the shape is left to compare. The bank is drawn by the world's own renderer and normalised by the same function.

Shape letters: M outlines, B templates of the bank, G cells of the normalised frame (28 x 28, flattened).
"""

import math
from functools import lru_cache
from itertools import product

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from forejudge.miniature.coupling import LARGEST_RADIUS, SMALLEST_RADIUS
from forejudge.miniature.scene import IMAGE_SIZE, SceneBatch, coverage
from forejudge.miniature.shapes import KINDS

Map = NDArray[np.float32]

_SIDE = 28
_SPAN = 1.15  # half the frame's side, in square roots of the outline's area
_RADII = (SMALLEST_RADIUS, (SMALLEST_RADIUS + LARGEST_RADIUS) / 2, LARGEST_RADIUS)
_OFFSETS = (0.0, 0.5)  # of the centre on the pixel grid
_BLURS = (0.0, 0.8)  # pixels


def stretch(opacity: Map) -> Map:
    """Opacity to cover in [0, 1]: what is faint counts as nothing, what is nearly opaque as opaque."""
    return np.clip((opacity - 0.35) / 0.3, 0, 1).astype(np.float32)


def normalise(cover_HW: Map) -> Map:
    """A soft outline of at least one pixel in the common frame: (G,) in [0, 1]."""
    moments = cv2.moments(cover_HW)
    area = moments["m00"]
    step = 2 * _SPAN * math.sqrt(area) / _SIDE
    corner = -step * (_SIDE - 1) / 2
    to_source = np.array([[step, 0, moments["m10"] / area + corner], [0, step, moments["m01"] / area + corner]])
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    return cv2.warpAffine(cover_HW, to_source, (_SIDE, _SIDE), flags=flags).ravel()


@lru_cache(maxsize=1)
def bank() -> tuple[Map, NDArray[np.float32]]:
    """The templates, (kinds, templates of a kind, G), and each kind's area over its squared radius."""
    variants = list(product(_RADII, _OFFSETS, _OFFSETS))
    covers = _draw(variants).numpy()
    areas = covers.sum(axis=(2, 3)) / np.array([radius**2 for radius, *_ in variants])
    templates = [[normalise(stretch(_blurred(cover, blur))) for cover, blur in product(row, _BLURS)] for row in covers]
    return np.array(templates, np.float32), areas.mean(axis=1).astype(np.float32)


def _draw(variants: list[tuple[float, float, float]]) -> torch.Tensor:
    """Every kind at every (radius, x offset, y offset): (kinds, variants, H, W)."""
    pairs = list(product(range(len(KINDS)), variants))
    middle = IMAGE_SIZE / 2
    scenes = SceneBatch(
        kind_NK=torch.tensor([[kind] for kind, _ in pairs]),
        colour_NK=torch.zeros(len(pairs), 1, dtype=torch.long),
        centre_NK2=torch.tensor([[[middle + x, middle + y]] for _, (_, x, y) in pairs]),
        radius_NK=torch.tensor([[radius] for _, (radius, _, _) in pairs]),
        present_NK=torch.ones(len(pairs), 1, dtype=torch.bool),
        background_N=torch.zeros(len(pairs)),
    )
    return coverage(scenes, slot=0).unflatten(0, (len(KINDS), -1))


def _blurred(cover: Map, sigma: float) -> Map:
    return cv2.GaussianBlur(cover, (0, 0), sigma) if sigma else cover


def likeness(outlines_MG: Map) -> Map:
    """Soft intersection over union of each outline with the nearest template of each kind: (M, kinds)."""
    templates_KBG, _ = bank()
    flat_BG = templates_KBG.reshape(-1, templates_KBG.shape[-1])
    rows = []
    for outline_G in outlines_MG:
        difference_B = np.abs(flat_BG - outline_G).sum(axis=1)
        total_B = flat_BG.sum(axis=1) + outline_G.sum()
        rows.append((total_B - difference_B) / (total_B + difference_B))
    return np.array(rows).reshape(len(rows), len(KINDS), -1).max(axis=2)
