"""The kinds of object in the miniature world, as signed distance fields.

Each kind is a set of polygons in a frame where the object's radius is 1 and y points down. A field holds, for
every point of [-EXTENT, EXTENT]^2, the distance to the outline: negative inside, positive outside.
"""

import math
from collections.abc import Callable
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

Outline = list[tuple[float, float]]
Field = NDArray[np.float32]

EXTENT = 1.5
FIELD_SIZE = 96


def _polar(radii: list[float], start: float = -90.0) -> Outline:
    """Points at the given radii, evenly spaced in angle, clockwise from `start` degrees."""
    step = 360.0 / len(radii)
    angles = [math.radians(start + index * step) for index in range(len(radii))]
    return [(r * math.cos(a), r * math.sin(a)) for r, a in zip(radii, angles, strict=True)]


def _circle(radius: float, centre_x: float = 0.0) -> Outline:
    return [(x + centre_x, y) for x, y in _polar([radius] * 64)]


def _square(half_side: float) -> Outline:
    h = half_side
    return [(-h, -h), (h, -h), (h, h), (-h, h)]


def _heart() -> Outline:
    points = []
    for index in range(64):
        t = 2 * math.pi * index / 64
        x = 16 * math.sin(t) ** 3
        y = 13 * math.cos(t) - 5 * math.cos(2 * t) - 2 * math.cos(3 * t) - math.cos(4 * t)
        points.append((x / 15.5, -(y + 2.5) / 15.5))
    return points


_CROSS: Outline = [
    (-0.36, -1.05), (0.36, -1.05), (0.36, -0.36), (1.05, -0.36), (1.05, 0.36), (0.36, 0.36),
    (0.36, 1.05), (-0.36, 1.05), (-0.36, 0.36), (-1.05, 0.36), (-1.05, -0.36), (-0.36, -0.36),
]  # fmt: skip
_ARROW: Outline = [
    (1.1, 0.0), (0.1, -1.0), (0.1, -0.42), (-1.1, -0.42), (-1.1, 0.42), (0.1, 0.42), (0.1, 1.0),
]  # fmt: skip
_HOURGLASS: Outline = [
    (-0.95, -1.0), (0.95, -1.0), (0.22, 0.0), (0.95, 1.0), (-0.95, 1.0), (-0.22, 0.0),
]  # fmt: skip


def _distance(outline: Outline, points_P2: NDArray[np.float64]) -> NDArray[np.float64]:
    """Signed distance from each point to a polygon (Quilez, "2D distance functions")."""
    corners = np.array(outline)
    previous = np.roll(corners, 1, axis=0)
    squared = np.full(len(points_P2), np.inf)
    sign = np.ones(len(points_P2))
    for a, b in zip(corners, previous, strict=True):
        edge, offset = b - a, points_P2 - a
        along = np.clip(offset @ edge / (edge @ edge), 0.0, 1.0)
        squared = np.minimum(squared, ((offset - along[:, None] * edge) ** 2).sum(1))
        above, below = points_P2[:, 1] >= a[1], points_P2[:, 1] < b[1]
        left = edge[0] * offset[:, 1] > edge[1] * offset[:, 0]
        sign[(above & below & left) | (~above & ~below & ~left)] *= -1
    return sign * np.sqrt(squared)


def _solid(outline: Outline) -> Callable[[NDArray[np.float64]], NDArray[np.float64]]:
    return lambda points: _distance(outline, points)


def _without(outer: Outline, hole: Outline) -> Callable[[NDArray[np.float64]], NDArray[np.float64]]:
    return lambda points: np.maximum(_distance(outer, points), -_distance(hole, points))


_SHAPES = {
    "circle": _solid(_circle(1.0)),
    "square": _solid(_square(0.9)),
    "triangle": _solid([(0.0, -1.05), (1.1, 0.85), (-1.1, 0.85)]),
    "diamond": _solid([(0.0, -1.2), (0.85, 0.0), (0.0, 1.2), (-0.85, 0.0)]),
    "star": _solid(_polar([1.2, 0.5] * 5)),
    "heart": _solid(_heart()),
    "cross": _solid(_CROSS),
    "ring": _without(_circle(1.08), _circle(0.52)),
    "moon": _without(_circle(1.08), _circle(0.92, 0.62)),
    "arrow": _solid(_ARROW),
    "hourglass": _solid(_HOURGLASS),
    "frame": _without(_square(1.0), _square(0.5)),
}
KINDS: tuple[str, ...] = tuple(_SHAPES)


@lru_cache(maxsize=1)
def signed_distance_fields() -> Field:
    """The fields of all kinds, shape (kinds, FIELD_SIZE, FIELD_SIZE), in units of the object's radius."""
    axis = (np.arange(FIELD_SIZE) + 0.5) / FIELD_SIZE * 2 * EXTENT - EXTENT
    x, y = np.meshgrid(axis, axis)
    points_P2 = np.stack([x.ravel(), y.ravel()], axis=1)
    fields = [shape(points_P2).reshape(FIELD_SIZE, FIELD_SIZE) for shape in _SHAPES.values()]
    return np.stack(fields).astype(np.float32)
