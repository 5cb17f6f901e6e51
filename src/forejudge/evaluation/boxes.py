"""Boxes as GenEval compares them, in float32: how much two overlap, and where one stands to another."""

import numpy as np
from numpy.typing import NDArray

from forejudge.evaluation.detection import Box
from forejudge.evaluation.metadata import RELATIONS, Relation


def box_iou(a: Box, b: Box) -> float:
    """Intersection over union in [0, 1], where a box covers its last pixel too, as in GenEval."""
    box_a, box_b = np.asarray(a, np.float32), np.asarray(b, np.float32)
    shared = _area(np.r_[np.maximum(box_a[:2], box_b[:2]), np.minimum(box_a[2:], box_b[2:])])
    union = _area(box_a) + _area(box_b) - shared
    return float(shared / union) if union else 0.0


def _area(box: NDArray[np.float32]) -> np.float32:
    width, height = np.maximum(box[2:] - box[:2] + 1, 0)
    return np.float32(width * height)


def relative_position(a: Box, b: Box, threshold: float) -> frozenset[Relation]:
    """Where box `a` stands to box `b`: none, one, or two relations on a diagonal.

    Of the offset between the centers, `threshold` times both sizes is taken off along each axis;
    a relation holds where more than half of the offset's length is left.
    """
    corners = np.array([a, b], np.float32).reshape(2, 2, 2)
    sizes = np.abs(corners[:, 1] - corners[:, 0])
    center_a, center_b = corners.mean(axis=1)
    offset = center_a - center_b
    beyond = np.maximum(np.abs(offset) - threshold * sizes.sum(axis=0), 0) * np.sign(offset)
    if np.all(np.abs(beyond) < 1e-3):
        return frozenset()
    right, down = beyond / np.linalg.norm(offset)
    holds = (right < -0.5, right > 0.5, down < -0.5, down > 0.5)
    return frozenset(name for name, true in zip(RELATIONS, holds, strict=True) if true)
