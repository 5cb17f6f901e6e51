"""Reads the objects back out of a picture of the miniature world. No learned weights."""

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from forejudge.evaluation.detection import Detection
from forejudge.miniature.scene import COLOUR_NAMES, COLOURS
from forejudge.miniature.shapes import KINDS
from forejudge.miniature.templates import Map, bank, likeness, normalise, stretch

Mask = NDArray[np.bool_]
_PALETTE = np.array(list(COLOURS.values()), np.float32)
_SMALLEST_AREA = 40


@dataclass(frozen=True)
class _Region:
    cover: Map
    colour: int
    opacity: float
    residual: float
    mask: Mask


def background_of(picture):
    pixels = picture.reshape(-1, 3)
    level = np.median(pixels, axis=0)
    near = np.abs(pixels - level).max(axis=1) < 0.1
    return np.median(pixels[near], axis=0) if near.any() else level


def fit(offsets, axes):
    """nearest point on each segment: label, opacity, residual"""
    sq = (axes**2).sum(1)
    proj = offsets @ axes.T
    opacity = np.clip(proj / sq, 0, 1)
    cost = (offsets**2).sum(-1, keepdims=True) + opacity * (opacity * sq - 2 * proj)
    label = cost.argmin(-1)
    take = lambda a: np.take_along_axis(a, label[..., None], -1)[..., 0]
    return label, take(opacity), np.sqrt(np.maximum(take(cost), 0))


def components(mask):
    count, labels, stats, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8), connectivity=4)
    return [labels == i for i in range(1, count) if stats[i, cv2.CC_STAT_AREA] >= _SMALLEST_AREA]


def regions(offsets, axes):
    label, opacity, residual = fit(offsets, axes)
    solid = opacity > 0.5
    parts = []
    for mask in components(solid):
        names = np.bincount(label[mask], minlength=10)
        if names.max() > 0.85 * names.sum():
            parts.append(mask)
        else:
            parts += [p for c in np.flatnonzero(names >= _SMALLEST_AREA) for p in components(mask & (label == c))]
    everything = np.zeros(solid.shape, bool)
    for p in parts:
        everything |= p
    for p in parts:
        yield region(offsets, axes, p, everything & ~p)


KERNEL = np.ones((3, 3), np.uint8)


def region(offsets, axes, mask, others):
    strength = np.linalg.norm(offsets[mask], axis=1)
    core = np.median(offsets[mask][strength >= np.quantile(strength, 0.6)], axis=0)
    label, opacity, residual = fit(core[None], axes)
    territory = cv2.dilate(mask.astype(np.uint8), KERNEL, iterations=2).astype(bool) & ~others
    cover = stretch((offsets @ core / (core @ core)) * territory)
    return _Region(cover, int(label[0]), float(opacity[0]), float(residual[0]), mask)


def measure(picture):
    pixels = np.asarray(picture, np.float32) / 255
    bg = background_of(pixels)
    offsets = pixels - bg
    axes = _PALETTE - bg
    found = list(regions(offsets, axes))
    if not found:
        return []
    lk = likeness(np.stack([normalise(r.cover) for r in found]))
    out = []
    areas = bank()[1]
    for r, l in zip(found, lk):
        order = l.argsort()[::-1]
        k = order[0]
        ys, xs = np.nonzero(r.mask)
        out.append(
            dict(
                kind=KINDS[k],
                iou=l[k],
                second=l[order[1]],
                kind2=KINDS[order[1]],
                opacity=r.opacity,
                residual=r.residual,
                colour=COLOUR_NAMES[r.colour],
                radius=float(np.sqrt(r.cover.sum() / areas[k])),
                box=(xs.min(), ys.min(), xs.max() + 1, ys.max() + 1),
            )
        )
    return out
