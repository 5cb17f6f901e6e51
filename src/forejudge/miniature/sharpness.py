"""How sharp a picture's objects are: the width of their edges, to be compared with rendered ones."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from forejudge.evaluation.detection import Detection


def edge_widths(picture: Image.Image, detections: Sequence[Detection]) -> list[float]:
    """For each detected object the pixels on its way from 10 % to 90 % of its contrast, per pixel of outline."""
    pixels = np.asarray(picture, dtype=np.float64) / 255
    background = np.median(np.concatenate([pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1]]), axis=0)
    widths = [_edge_width(pixels, background, detection) for detection in detections]
    return [width for width in widths if width is not None]


def _edge_width(pixels: NDArray[np.float64], background: NDArray[np.float64], detection: Detection) -> float | None:
    left, top, right, bottom = (round(side) for side in detection.box)
    window = pixels[max(top - 3, 0) : bottom + 3, max(left - 3, 0) : right + 3] - background
    strength = np.linalg.norm(window, axis=2)
    core = np.quantile(strength, 0.9)
    if core < 0.05:
        return None
    share = strength / core
    inside = share > 0.5
    outline = int(np.count_nonzero(inside[1:] != inside[:-1]) + np.count_nonzero(inside[:, 1:] != inside[:, :-1]))
    return float(np.count_nonzero((share > 0.1) & (share < 0.9))) / max(outline, 1)
