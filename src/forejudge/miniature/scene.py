"""Scenes: what stands where. And the renderer that draws them.

Shape letters: N scenes, K object slots (4), H and W pixels.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from forejudge.evaluation.metadata import Color
from forejudge.miniature.shapes import EXTENT, signed_distance_fields

IMAGE_SIZE = 64
MAX_OBJECTS = 4
EDGE_WIDTH = 1.6  # pixels from fully background to fully object, before the pixel grid

# Neighbours differ little, so that a colour between two of them is no stray third one.
COLOURS: dict[Color, tuple[float, float, float]] = {
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
COLOUR_NAMES: tuple[Color, ...] = tuple(COLOURS)


@dataclass(frozen=True)
class SceneBatch:
    """N scenes. Slots that hold no object are False in `present`."""

    kind_NK: Tensor  # index into KINDS
    colour_NK: Tensor  # index into COLOUR_NAMES
    centre_NK2: Tensor  # x, y in pixels
    radius_NK: Tensor  # pixels
    present_NK: Tensor  # bool
    background_N: Tensor  # grey level in [0, 1]


def render(scenes: SceneBatch, size: int = IMAGE_SIZE) -> Tensor:
    """Draw scenes: (N, 3, size, size) in [0, 1]. Later slots are drawn over earlier ones."""
    picture_N3HW = scenes.background_N.view(-1, 1, 1, 1).expand(-1, 3, size, size)
    palette = torch.tensor(list(COLOURS.values()))
    for slot in range(scenes.kind_NK.shape[1]):
        cover_N1HW = coverage(scenes, slot, size).unsqueeze(1)
        colour_N3 = palette[scenes.colour_NK[:, slot]]
        picture_N3HW = torch.lerp(picture_N3HW, colour_N3[:, :, None, None], cover_N1HW)
    return picture_N3HW


def to_images(pictures_N3HW: Tensor) -> list[Image.Image]:
    """Pictures in [0, 1] as PIL images."""
    bytes_NHW3 = (pictures_N3HW * 255).round().byte().permute(0, 2, 3, 1).numpy()
    return [Image.fromarray(picture_HW3) for picture_HW3 in bytes_NHW3]


def coverage(scenes: SceneBatch, slot: int, size: int = IMAGE_SIZE) -> Tensor:
    """How much of each pixel the object in `slot` covers: (N, size, size) in [0, 1]."""
    pixel = torch.arange(size, dtype=torch.float32) + 0.5
    centre_N2, radius_N = scenes.centre_NK2[:, slot], scenes.radius_NK[:, slot]
    x_NW = (pixel[None] - centre_N2[:, :1]) / (radius_N[:, None] * EXTENT)
    y_NH = (pixel[None] - centre_N2[:, 1:]) / (radius_N[:, None] * EXTENT)
    grid_NHW2 = torch.stack([x_NW[:, None, :].expand(-1, size, -1), y_NH[:, :, None].expand(-1, -1, size)], dim=-1)
    fields_N1SS = torch.from_numpy(signed_distance_fields())[scenes.kind_NK[:, slot]].unsqueeze(1)
    distance_NHW = F.grid_sample(fields_N1SS, grid_NHW2, padding_mode="border", align_corners=False).squeeze(1)
    cover_NHW = (0.5 - distance_NHW * radius_N[:, None, None] / EDGE_WIDTH).clamp(0, 1)
    return cover_NHW * scenes.present_NK[:, slot, None, None]
