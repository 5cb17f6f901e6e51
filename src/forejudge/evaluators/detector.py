"""Mask2Former as a detector of COCO's objects, in float32."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from PIL.Image import Image
from pydantic import BaseModel, ConfigDict
from torch import Tensor, nn
from torch.nn.functional import interpolate
from transformers import Mask2FormerConfig, Mask2FormerModel, Mask2FormerPreTrainedModel

from forejudge.checkpoint import weights_digest, weights_name
from forejudge.config_files import read_config
from forejudge.device import exact_float32
from forejudge.errors import CheckpointError
from forejudge.evaluators.geneval_rules import Box, Detection
from forejudge.hub import local_folder
from forejudge.library_models import load_library_model

# FOLDED: The 80 classes of COCO that detectors of GenEval know.


# fmt: off
CLASS_NAMES = (
    "person", "bicycle", "car", "motorcycle", "airplane", "bus", "train", "truck", "boat", "traffic light",
    "fire hydrant", "stop sign", "parking meter", "bench", "bird", "cat", "dog", "horse", "sheep", "cow", "elephant",
    "bear", "zebra", "giraffe", "backpack", "umbrella", "handbag", "tie", "suitcase", "frisbee", "skis", "snowboard",
    "sports ball", "kite", "baseball bat", "baseball glove", "skateboard", "surfboard", "tennis racket", "bottle",
    "wine glass", "cup", "fork", "knife", "spoon", "bowl", "banana", "apple", "sandwich", "orange", "broccoli",
    "carrot", "hot dog", "pizza", "donut", "cake", "chair", "couch", "potted plant", "bed", "dining table", "toilet",
    "tv", "laptop", "computer mouse", "tv remote", "computer keyboard", "cell phone", "microwave", "oven", "toaster",
    "sink", "refrigerator", "book", "clock", "vase", "scissors", "teddy bear", "hair drier", "toothbrush",
)
# fmt: on
"""In COCO's order, which is that of a detector's class indices; spelled as GenEval's prompts spell them."""


# FOLDED: Mask2Former without its training loss, and what is known of where a folder's weights come from.
#
# transformers' `Mask2FormerForUniversalSegmentation` makes its loss whenever it is made, and that asks for scipy. This is
# the rest of it, under the same names, so that both load each other's folders.


ORIGIN_FILE = "origin.json"

# Begins of the SHA-256 of GenEval's detector, as their file names tell: one training, published by mmdetection
# 2.x and again by 3.x (the file that GenEval's download script fetches).
GENEVAL_DETECTORS = ("743b7d99", "c9d0c4f2")


class Mask2Former(Mask2FormerPreTrainedModel):
    """Pictures in, classes and masks of N queries out."""

    _keys_to_ignore_on_load_missing = (r"\.swin\.layernorm\.",)  # of the classifier that a backbone is cut from
    _keys_to_ignore_on_load_unexpected = (r"^criterion\.", r"relative_position_index$")

    def __init__(self, config: Mask2FormerConfig) -> None:
        super().__init__(config)
        self.model = Mask2FormerModel(config)
        self.class_predictor = nn.Linear(config.hidden_dim, config.num_labels + 1)
        self.post_init()

    def forward(self, pixels_B3HW: Tensor) -> tuple[Tensor, Tensor]:
        """Logits of the classes (B, N, classes + 1), "no object" last, and of the masks (B, N, H / 4, W / 4)."""
        seen = self.model(pixel_values=pixels_B3HW, output_hidden_states=True)
        states_NBD = seen.transformer_decoder_intermediate_states[-1]
        return self.class_predictor(states_NBD.transpose(0, 1)), seen.masks_queries_logits[-1]


class Origin(BaseModel):
    """The file that weights were converted from, and the weights that came of it (see `weights_digest`)."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    file: str
    sha256: str
    weights: str

    @property
    def is_genevals(self) -> bool:
        """Whether the file is one of those that GenEval judges with."""
        return self.sha256.startswith(GENEVAL_DETECTORS)


def read_origin(folder: Path) -> Origin | None:
    """None for a folder that was not converted here. Raises CheckpointError for a damaged file."""
    path = folder / ORIGIN_FILE
    return read_config(path, Origin) if path.exists() else None


def check_classes(count: int, source: Path) -> None:
    """Raises CheckpointError for another number than COCO has."""
    if count != len(CLASS_NAMES):
        raise CheckpointError(f"{source} knows {count} classes, expected COCO's {len(CLASS_NAMES)} for instances")


# FOLDED: From a picture to what mmdetection's Mask2Former is shown, and from what it answers to objects.
#
# The steps of mmdetection 2.27 with the config of GenEval's detector. Shape letters: N queries, M of them, K classes,
# C channels, H and W of the picture as it is shown.


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


def shown(image: Image) -> Shown:
    """As large as fits, its edges' ratio kept; padded with grey to multiples of 32."""
    pixels: NDArray[np.uint8] = np.asarray(image.convert("RGB"))
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


def objects(classes_NK: Tensor, masks_NHW: Tensor, image: Shown, size: Size, least: float) -> list[Detection]:
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
    masks = _at_original_size(masks_NHW[places // probability_NK.shape[1]], image, size)
    found = masks > 0
    confidence = scores * (masks.sigmoid() * found).sum((1, 2)) / (found.sum((1, 2)) + 1e-6)
    names = [CLASS_NAMES[place] for place in (places % probability_NK.shape[1]).tolist()]
    return [
        Detection(name, _box(mask), certainty, mask=mask)
        for name, certainty, mask in zip(names, confidence.tolist(), found.cpu().numpy(), strict=True)
        if mask.any()
    ]


def _at_original_size(masks_MHW: Tensor, image: Shown, size: Size) -> Tensor:
    padded = interpolate(masks_MHW[:, None], image.pixels_CHW.shape[1:], mode="bilinear", align_corners=False)
    height, width = image.size
    return interpolate(padded[:, :, :height, :width], size, mode="bilinear", align_corners=False)[:, 0]


def _box(mask: NDArray[np.bool_]) -> Box:
    """From the first to behind the last pixel."""
    (down,), (right,) = np.nonzero(mask.any(axis=1)), np.nonzero(mask.any(axis=0))
    return float(right[0]), float(down[0]), float(right[-1] + 1), float(down[-1] + 1)


class ObjectDetector:
    """`name` tells its weights from all others; `is_genevals` whether they are those that GenEval judges with."""

    def __init__(self, name: str, model: Mask2Former, is_genevals: bool) -> None:
        self.name, self.is_genevals = name, is_genevals
        self._model = model.eval().requires_grad_(False)

    @classmethod
    def from_pretrained(cls, name: str, device: torch.device) -> "ObjectDetector":
        """Load a folder, one of `convert_detector` or another, or a hub id. Raises CheckpointError."""
        folder = local_folder(name)
        model: Any = load_library_model(Mask2Former, folder, torch.float32)
        check_classes(model.config.num_labels, Path(name))
        origin, digest = read_origin(folder), weights_digest(folder)
        is_genevals = origin is not None and origin.is_genevals and origin.weights == digest
        return cls(weights_name(name if origin is None else origin.file, folder), model.to(device), is_genevals)

    @torch.no_grad()
    def __call__(self, image: Image, least: float = 0.0) -> list[Detection]:
        """Objects with their masks, of those whose confidence can exceed `least`: see `objects`.

        Raises CheckpointError where the model gives no numbers, which is not the same as seeing nothing.
        """
        as_shown = shown(image)
        with exact_float32():
            (classes_NK,), (masks_NHW,) = self._model(as_shown.pixels_CHW[None].to(self._model.device))
            if not (classes_NK.isfinite().all() and masks_NHW.isfinite().all()):
                raise CheckpointError(f"detector {self.name} gave no numbers for a picture: its weights are damaged")
            return objects(classes_NK, masks_NHW, as_shown, (image.height, image.width), least)
