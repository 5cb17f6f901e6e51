"""Scenes of the miniature world: their shapes, their renderer, and their coupling to the generator's noise.

Each kind of object is a set of polygons in a frame where the object's radius is 1 and y points down; a signed distance
field holds the distance to the outline, negative inside, for every point of [-EXTENT, EXTENT]^2.

Coupling: one-step generation learns a function of noise. Where every choice that a prompt leaves open (place, size,
color, background) is a function of the noise, plain regression learns that function; where the noise is undecided
between two places, the regression generates a little of both. Those ghosts and doubles are the mistakes a verifier is
for. The image is divided into four quadrants, and each quadrant mean of a noise channel is a standard normal number.
Object j stands in the free quadrant where channel 4j is highest; channels 4j+1, 4j+2 and 4j+3 there give its offset and
size, a contrast inside the quadrant its color. A relation narrows the free quadrants to one side of the image.

Shape letters: N scenes, K object slots (4), H and W pixels, C noise channels (16), Q quadrants (4).
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from forejudge.prompts.geneval import RELATIONS, Color, Description

Outline = list[tuple[float, float]]
Field = NDArray[np.float32]

EXTENT = 1.5
FIELD_SIZE = 96


def _polar(radii: list[float], start: float = -90.0) -> Outline:
    """Return points at the given radii, evenly spaced in angle, clockwise from `start` degrees."""
    step = 360.0 / len(radii)
    angles = [math.radians(start + index * step) for index in range(len(radii))]
    return [(r * math.cos(a), r * math.sin(a)) for r, a in zip(radii, angles, strict=True)]


def _circle(radius: float, center_x: float = 0.0) -> Outline:
    return [(x + center_x, y) for x, y in _polar([radius] * 64)]


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


def _signed_distance(outline: Outline, points_P2: NDArray[np.float64]) -> NDArray[np.float64]:
    """Compute the signed distance from each point to a polygon (Quilez, "2D distance functions")."""
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


def _filled(outline: Outline) -> Callable[[NDArray[np.float64]], NDArray[np.float64]]:
    return lambda points: _signed_distance(outline, points)


def _with_hole(outer: Outline, hole: Outline) -> Callable[[NDArray[np.float64]], NDArray[np.float64]]:
    return lambda points: np.maximum(_signed_distance(outer, points), -_signed_distance(hole, points))


_SHAPES = {
    "circle": _filled(_circle(1.0)),
    "square": _filled(_square(0.9)),
    "triangle": _filled([(0.0, -1.05), (1.1, 0.85), (-1.1, 0.85)]),
    "diamond": _filled([(0.0, -1.2), (0.85, 0.0), (0.0, 1.2), (-0.85, 0.0)]),
    "star": _filled(_polar([1.2, 0.5] * 5)),
    "heart": _filled(_heart()),
    "cross": _filled(_CROSS),
    "ring": _with_hole(_circle(1.08), _circle(0.52)),
    "moon": _with_hole(_circle(1.08), _circle(0.92, 0.62)),
    "arrow": _filled(_ARROW),
    "hourglass": _filled(_HOURGLASS),
    "frame": _with_hole(_square(1.0), _square(0.5)),
}
KINDS: tuple[str, ...] = tuple(_SHAPES)


@lru_cache(maxsize=1)
def signed_distance_fields() -> Field:
    """Return the fields of all kinds, (kinds, FIELD_SIZE, FIELD_SIZE), in units of the object's radius."""
    axis = (np.arange(FIELD_SIZE) + 0.5) / FIELD_SIZE * 2 * EXTENT - EXTENT
    x, y = np.meshgrid(axis, axis)
    points_P2 = np.stack([x.ravel(), y.ravel()], axis=1)
    fields = [shape(points_P2).reshape(FIELD_SIZE, FIELD_SIZE) for shape in _SHAPES.values()]
    return np.stack(fields).astype(np.float32)


IMAGE_SIZE = 64
MAX_OBJECTS = 4
EDGE_WIDTH = 1.6  # pixels from fully background to fully object, before the pixel grid

# Neighbors differ little, so that a color between two of them is no stray third one.
PALETTE: dict[Color, tuple[float, float, float]] = {
    "white": (0.97, 0.97, 0.97),
    "pink": (0.98, 0.60, 0.76),
    "red": (0.86, 0.10, 0.10),
    "orange": (0.98, 0.55, 0.05),
    "yellow": (0.97, 0.90, 0.10),
    "green": (0.10, 0.62, 0.15),
    "blue": (0.10, 0.20, 0.88),
    "purple": (0.50, 0.12, 0.68),
    "brown": (0.45, 0.26, 0.10),
    "black": (0.04, 0.04, 0.04),
}
COLOR_NAMES: tuple[Color, ...] = tuple(PALETTE)


@dataclass(frozen=True)
class SceneBatch:
    """N scenes. Slots without an object are False in `present_NK`."""

    kind_NK: Tensor  # index into KINDS
    color_NK: Tensor  # index into COLOR_NAMES
    center_NK2: Tensor  # x, y in pixels
    radius_NK: Tensor  # pixels
    present_NK: Tensor  # bool
    background_N: Tensor  # gray level in [0, 1]


def render(scenes: SceneBatch, size: int = IMAGE_SIZE) -> Tensor:
    """Render scenes: (N, 3, size, size) in [0, 1]. Later slots cover earlier ones."""
    image_N3HW = scenes.background_N.view(-1, 1, 1, 1).expand(-1, 3, size, size)
    palette = torch.tensor(list(PALETTE.values()))
    for slot in range(scenes.kind_NK.shape[1]):
        cover_N1HW = coverage(scenes, slot, size).unsqueeze(1)
        color_N3 = palette[scenes.color_NK[:, slot]]
        image_N3HW = torch.lerp(image_N3HW, color_N3[:, :, None, None], cover_N1HW)
    return image_N3HW


def to_pil(images_N3HW: Tensor) -> list[Image.Image]:
    """Convert images in [0, 1] to PIL images."""
    bytes_NHW3 = (images_N3HW * 255).round().byte().permute(0, 2, 3, 1).numpy()
    return [Image.fromarray(image_HW3) for image_HW3 in bytes_NHW3]


def coverage(scenes: SceneBatch, slot: int, size: int = IMAGE_SIZE) -> Tensor:
    """Compute the coverage of each pixel by the object in `slot`: (N, size, size) in [0, 1]."""
    pixel = torch.arange(size, dtype=torch.float32) + 0.5
    center_N2, radius_N = scenes.center_NK2[:, slot], scenes.radius_NK[:, slot]
    x_NW = (pixel[None] - center_N2[:, :1]) / (radius_N[:, None] * EXTENT)
    y_NH = (pixel[None] - center_N2[:, 1:]) / (radius_N[:, None] * EXTENT)
    grid_NHW2 = torch.stack([x_NW[:, None, :].expand(-1, size, -1), y_NH[:, :, None].expand(-1, -1, size)], dim=-1)
    fields_N1SS = torch.from_numpy(signed_distance_fields())[scenes.kind_NK[:, slot]].unsqueeze(1)
    distance_NHW = F.grid_sample(fields_N1SS, grid_NHW2, padding_mode="border", align_corners=False).squeeze(1)
    cover_NHW = (0.5 - distance_NHW * radius_N[:, None, None] / EDGE_WIDTH).clamp(0, 1)
    return cover_NHW * scenes.present_NK[:, slot, None, None]


NOISE_SHAPE = (16, 8, 8)
MIN_RADIUS, MAX_RADIUS = 7.5, 10.5
BACKGROUND_RANGE = (0.45, 0.65)
_MARGIN = 1.4  # pixels kept free around an object beyond its radius times 1.2, in its quadrant
_CHANNELS = {1: "x", 2: "y", 3: "size"}  # by their shift from an object's first channel
_RELATION_OFFSET = 0.4  # smaller offsets keep a relation plain also across the diagonal

# Quadrants: 0 upper left, 1 upper right, 2 lower left, 3 lower right; sides as the first object needs them.
_SIDE_OF_RELATION = torch.tensor([[1, 0, 1, 0], [0, 1, 0, 1], [1, 1, 0, 0], [0, 0, 1, 1]], dtype=torch.bool)


@dataclass(frozen=True)
class SceneConstraints:
    """Choices that N prompts fix, as tensors; -1 stands for "left open"."""

    kind_NK: Tensor
    color_NK: Tensor
    present_NK: Tensor
    relation_N: Tensor

    @classmethod
    def from_descriptions(cls, descriptions: list[Description]) -> "SceneConstraints":
        """Encode descriptions, one row each."""
        kind = torch.zeros(len(descriptions), MAX_OBJECTS, dtype=torch.long)
        color = torch.full_like(kind, -1)
        present = torch.zeros_like(kind, dtype=torch.bool)
        relation = torch.full((len(descriptions),), -1)
        for row, description in enumerate(descriptions):
            objects = description.objects * description.count
            for slot, item in enumerate(objects):
                kind[row, slot] = KINDS.index(item.kind)
                present[row, slot] = True
                if item.color:
                    color[row, slot] = COLOR_NAMES.index(item.color)
            if description.relation:
                relation[row] = RELATIONS.index(description.relation)
        return cls(kind, color, present, relation)


def couple(constraints: SceneConstraints, noise_NCHW: Tensor) -> SceneBatch:
    """Return the scenes that the prompts ask for, with open choices taken from standard normal noise (N, 16, 8, 8)."""
    mean_NCQ, contrast_NCQ = _quadrant_statistics(noise_NCHW)
    quadrant_NK = _choose_quadrants(constraints, mean_NCQ[:, ::4])
    parts = {name: _uniform_at(mean_NCQ[:, shift::4], quadrant_NK) for shift, name in _CHANNELS.items()}
    radius_NK = MIN_RADIUS + (MAX_RADIUS - MIN_RADIUS) * parts["size"]
    open_color_NK = (_uniform_at(contrast_NCQ[:, ::4], quadrant_NK) * len(COLOR_NAMES)).long()
    low, high = BACKGROUND_RANGE
    brightness_N = _uniform(contrast_NCQ[:, 1].sum(1) / 2)
    return SceneBatch(
        kind_NK=constraints.kind_NK,
        color_NK=torch.where(constraints.color_NK < 0, open_color_NK, constraints.color_NK),
        center_NK2=_centers(quadrant_NK, parts["x"], parts["y"], radius_NK, constraints.relation_N),
        radius_NK=radius_NK,
        present_NK=constraints.present_NK,
        background_N=low + (high - low) * brightness_N,
    )


def _uniform(normal: Tensor) -> Tensor:
    """Map standard normal numbers to uniform ones in (0, 1)."""
    return torch.special.ndtr(normal).clamp(1e-4, 1 - 1e-4)


def _quadrant_statistics(noise_NCHW: Tensor) -> tuple[Tensor, Tensor]:
    """Return quadrant means and left-minus-right contrasts of every channel, each standard normal: (N, C, Q)."""
    halves = noise_NCHW.unflatten(2, (2, -1)).unflatten(4, (2, 2, -1))  # N C 2 h 2 2 w
    count = halves.shape[3] * halves.shape[5] * halves.shape[6]
    sums = halves.sum(dim=(3, 6)) / count**0.5  # N C rows columns sides
    return sums.sum(-1).flatten(2), (sums[..., 0] - sums[..., 1]).flatten(2)


def _choose_quadrants(constraints: SceneConstraints, score_NKQ: Tensor) -> Tensor:
    """Choose for each object in turn the free quadrant of highest score: (N, K)."""
    free_NQ = torch.ones(score_NKQ.shape[0], 4, dtype=torch.bool)
    related = constraints.relation_N >= 0
    side_NQ = _SIDE_OF_RELATION[constraints.relation_N.clamp(min=0)]
    quadrants = []
    for slot in range(MAX_OBJECTS):
        allowed_NQ = free_NQ.clone()
        if slot < 2:
            side = side_NQ if slot == 0 else ~side_NQ
            allowed_NQ &= side | ~related[:, None]
        quadrant_N = score_NKQ[:, slot].masked_fill(~allowed_NQ, -torch.inf).argmax(1)
        free_NQ = free_NQ.scatter(1, quadrant_N[:, None], False)
        quadrants.append(quadrant_N)
    return torch.stack(quadrants, dim=1)


def _uniform_at(statistic_NKQ: Tensor, quadrant_NK: Tensor) -> Tensor:
    """Return the uniform number of each object at its own quadrant: (N, K)."""
    return _uniform(statistic_NKQ.gather(2, quadrant_NK[..., None]).squeeze(2))


def _centers(quadrant_NK: Tensor, u_NK: Tensor, v_NK: Tensor, radius_NK: Tensor, relation_N: Tensor) -> Tensor:
    cell = IMAGE_SIZE / 2
    max_offset_NK = (cell / 2 - 1.2 * radius_NK - _MARGIN).clamp(min=0)
    max_offset_NK = max_offset_NK * torch.where(relation_N >= 0, _RELATION_OFFSET, 1.0)[:, None]
    x_NK = (quadrant_NK % 2 + 0.5) * cell + (2 * u_NK - 1) * max_offset_NK
    y_NK = (quadrant_NK // 2 + 0.5) * cell + (2 * v_NK - 1) * max_offset_NK
    return torch.stack([x_NK, y_NK], dim=-1)
