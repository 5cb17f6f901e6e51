"""From a picture to what mmdetection's Mask2Former is shown, and from what it answers to objects.

The steps of mmdetection 2.27 with the config of GenEval's detector. Shape letters: N queries, M of them, K classes,
C channels, H and W of the picture as it is shown.
"""

from dataclasses import dataclass

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from PIL.Image import Image
from torch import Tensor
from torch.nn.functional import interpolate

from forejudge.evaluation.coco import CLASS_NAMES
from forejudge.evaluation.detection import Box, Detection

LONGEST, SHORTEST = 1333, 800  # of a picture's edges, in pixels
_DIVISOR, _PADDING = 32, 128
_MEAN = np.array([123.675, 116.28, 103.53], np.float32)
_SCALE = (1 / np.array([58.395, 57.12, 57.375])).astype(np.float32)
_MOST_OBJECTS = 100

Size = tuple[int, int]
"""Height and width in pixels."""


@dataclass(frozen=True)
class Shown:
    """A picture as the detector sees it: resized to `size`, padded below and on the right, normalised."""

    pixels_CHW: Tensor
    size: Size


def shown(picture: Image) -> Shown:
    """As large as fits, its edges' ratio kept; padded with grey to multiples of 32."""
    pixels: NDArray[np.uint8] = np.asarray(picture.convert("RGB"))
    height, width = shown_size(pixels.shape[0], pixels.shape[1])
    resized = cv2.resize(pixels, (width, height), interpolation=cv2.INTER_LINEAR)
    below, right = -height % _DIVISOR, -width % _DIVISOR
    padded = cv2.copyMakeBorder(resized, 0, below, 0, right, cv2.BORDER_CONSTANT, value=[_PADDING] * 3)
    normalised = (padded.astype(np.float32) - _MEAN) * _SCALE
    return Shown(torch.from_numpy(normalised.transpose(2, 0, 1).copy()), (height, width))


def shown_size(height: int, width: int) -> Size:
    """The largest size with this ratio whose shorter edge is at most 800 and whose longer one is at most 1333."""
    scale = min(LONGEST / max(height, width), SHORTEST / min(height, width))
    return int(height * scale + 0.5), int(width * scale + 0.5)


def objects(classes_NK: Tensor, masks_NHW: Tensor, picture: Shown, size: Size, least: float) -> list[Detection]:
    """The 100 likeliest pairs of query and class, less those with an empty mask, most likely class first.

    `classes_NK` are logits with "no object" as the last class, `masks_NHW` logits at any resolution; the masks found
    have `size`, the original picture's. A confidence is the class's probability times the mean probability of the
    mask's pixels; pairs whose class has no more than `least` are left out, since no mask can lift them above it.
    """
    probability_NK = classes_NK.softmax(-1)[:, :-1]
    likeliest = probability_NK.flatten().topk(_MOST_OBJECTS)
    likely = likeliest.values > least
    scores, places = likeliest.values[likely], likeliest.indices[likely]
    if not len(scores):
        return []
    masks = _at_original_size(masks_NHW[places // probability_NK.shape[1]], picture, size)
    found = masks > 0
    confidence = scores * (masks.sigmoid() * found).sum((1, 2)) / (found.sum((1, 2)) + 1e-6)
    names = [CLASS_NAMES[place] for place in (places % probability_NK.shape[1]).tolist()]
    return [
        Detection(name, _box(mask), certainty, mask=mask)
        for name, certainty, mask in zip(names, confidence.tolist(), found.cpu().numpy(), strict=True)
        if mask.any()
    ]


def _at_original_size(masks_MHW: Tensor, picture: Shown, size: Size) -> Tensor:
    padded = interpolate(masks_MHW[:, None], picture.pixels_CHW.shape[1:], mode="bilinear", align_corners=False)
    height, width = picture.size
    return interpolate(padded[:, :, :height, :width], size, mode="bilinear", align_corners=False)[:, 0]


def _box(mask: NDArray[np.bool_]) -> Box:
    """From the first to behind the last pixel."""
    (down,), (right,) = np.nonzero(mask.any(axis=1)), np.nonzero(mask.any(axis=0))
    return float(right[0]), float(down[0]), float(right[-1] + 1), float(down[-1] + 1)
