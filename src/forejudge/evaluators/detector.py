"""Mask2Former as GenEval's object detector, in float32, with mmdetection's pre- and post-processing.

Processing follows mmdetection 2.27 with the config of GenEval's detector. Shape letters: B images, N queries, M kept
queries, K classes, C channels, D width, H and W of the image as the detector sees it.
"""

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
from forejudge.files import exists
from forejudge.hub import local_folder
from forejudge.library_models import load_library_model

Size = tuple[int, int]
"""Height and width in pixels."""

# COCO's order, which is that of a detector's class indices; spelled as GenEval's prompts spell them.
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

ORIGIN_FILE = "origin.json"
# First digits of the SHA-256 of GenEval's detector, as in its file names: one training run, published by mmdetection
# 2.x and again by 3.x (the file that GenEval's download script fetches).
GENEVAL_DETECTORS = ("743b7d99", "c9d0c4f2")

LONGEST, SHORTEST = 1333, 800  # limits of an image's edges, in pixels
_DIVISOR, _PADDING = 32, 128
_MEAN = np.array([123.675, 116.28, 103.53], np.float32)
_SCALE = (1 / np.array([58.395, 57.12, 57.375])).astype(np.float32)
_MAX_OBJECTS = 100


class ObjectDetector:
    """Detector of COCO's objects. `name` identifies its weights; `is_genevals` says whether they are GenEval's."""

    def __init__(self, name: str, model: "Mask2Former", is_genevals: bool) -> None:
        self.name, self.is_genevals = name, is_genevals
        self._model = model.eval().requires_grad_(False)

    @classmethod
    def from_pretrained(cls, name: str, device: torch.device) -> "ObjectDetector":
        """Load a folder, written by `convert_detector` or not, or a hub id. Raises CheckpointError."""
        folder = local_folder(name)
        model: Any = load_library_model(Mask2Former, folder, torch.float32)
        check_classes(model.config.num_labels, Path(name))
        origin, digest = read_origin(folder), weights_digest(folder)
        is_genevals = origin is not None and origin.is_genevals and origin.weights == digest
        return cls(weights_name(name if origin is None else origin.file, folder), model.to(device), is_genevals)

    @torch.no_grad()
    def __call__(self, image: Image, min_confidence: float = 0.0) -> list[Detection]:
        """Detect objects with their masks, without those that cannot exceed `min_confidence`: see `postprocess`.

        Raises CheckpointError where the model returns NaN, which is not the same as an empty image.
        """
        model_input = preprocess(image)
        with exact_float32():
            (classes_NK,), (masks_NHW,) = self._model(model_input.pixels_CHW[None].to(self._model.device))
            if not (classes_NK.isfinite().all() and masks_NHW.isfinite().all()):
                raise CheckpointError(f"detector {self.name} returned NaN for an image: its weights are damaged")
            return postprocess(classes_NK, masks_NHW, model_input, (image.height, image.width), min_confidence)


class Mask2Former(Mask2FormerPreTrainedModel):
    """Mask2Former without its training loss: images in, classes and masks of N queries out.

    transformers' `Mask2FormerForUniversalSegmentation` always builds its loss, which needs scipy. This class keeps its
    parameter names, so that each loads the other's folders.
    """

    _keys_to_ignore_on_load_missing = (r"\.swin\.layernorm\.",)  # of the classifier that a backbone is cut from
    _keys_to_ignore_on_load_unexpected = (r"^criterion\.", r"relative_position_index$")

    def __init__(self, config: Mask2FormerConfig) -> None:
        super().__init__(config)
        self.model = Mask2FormerModel(config)
        self.class_predictor = nn.Linear(config.hidden_dim, config.num_labels + 1)
        self.post_init()

    def forward(self, pixels_B3HW: Tensor) -> tuple[Tensor, Tensor]:
        """Return logits of the classes (B, N, K + 1), "no object" last, and of the masks (B, N, H / 4, W / 4)."""
        outputs = self.model(pixel_values=pixels_B3HW, output_hidden_states=True)
        states_NBD = outputs.transformer_decoder_intermediate_states[-1]
        return self.class_predictor(states_NBD.transpose(0, 1)), outputs.masks_queries_logits[-1]


class Origin(BaseModel):
    """Source file of converted weights, and the digest of the weights themselves (see `weights_digest`)."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    file: str
    sha256: str
    weights: str

    @property
    def is_genevals(self) -> bool:
        """True if the file is one of those that GenEval evaluates with."""
        return self.sha256.startswith(GENEVAL_DETECTORS)


def read_origin(folder: Path) -> Origin | None:
    """Read a folder's origin; None for one that was not converted. Raises CheckpointError for a damaged file."""
    path = folder / ORIGIN_FILE
    return read_config(path, Origin) if exists(path) else None


def check_classes(count: int, source: Path) -> None:
    """Raise CheckpointError for a number of classes other than COCO's."""
    if count != len(CLASS_NAMES):
        raise CheckpointError(f"{source} knows {count} classes, expected COCO's {len(CLASS_NAMES)} for instances")


@dataclass(frozen=True)
class DetectorInput:
    """Image as the detector sees it: resized to `size`, padded below and on the right, normalized."""

    pixels_CHW: Tensor
    size: Size


def preprocess(image: Image) -> DetectorInput:
    """Resize to the largest allowed size, keeping the aspect ratio, and pad with gray to multiples of 32."""
    pixels: NDArray[np.uint8] = np.asarray(image.convert("RGB"))
    height, width = resized_size(pixels.shape[0], pixels.shape[1])
    resized = cv2.resize(pixels, (width, height), interpolation=cv2.INTER_LINEAR)
    below, right = -height % _DIVISOR, -width % _DIVISOR
    padded = cv2.copyMakeBorder(resized, 0, below, 0, right, cv2.BORDER_CONSTANT, value=[_PADDING] * 3)
    normalized = (padded.astype(np.float32) - _MEAN) * _SCALE
    return DetectorInput(torch.from_numpy(normalized.transpose(2, 0, 1).copy()), (height, width))


def resized_size(height: int, width: int) -> Size:
    """Return the largest size of this aspect ratio with a shorter edge up to 800 and a longer one up to 1333."""
    scale = min(LONGEST / max(height, width), SHORTEST / min(height, width))
    return int(height * scale + 0.5), int(width * scale + 0.5)


def postprocess(
    classes_NK: Tensor, masks_NHW: Tensor, model_input: DetectorInput, size: Size, min_confidence: float
) -> list[Detection]:
    """Return the 100 most likely pairs of query and class, without empty masks, most likely class first.

    `classes_NK` are logits with "no object" as the last class, `masks_NHW` logits at any resolution; the returned masks
    have `size`, that of the original image. A confidence is the probability of the class times the mean probability of
    the mask's pixels. Pairs whose class has at most `min_confidence` are left out: no mask can lift them above it.
    """
    probability_NK = classes_NK.softmax(-1)[:, :-1]
    top = probability_NK.flatten().topk(_MAX_OBJECTS)
    is_kept = top.values > min_confidence
    scores, indices = top.values[is_kept], top.indices[is_kept]
    if not len(scores):
        return []
    logits_MHW = _at_original_size(masks_NHW[indices // probability_NK.shape[1]], model_input, size)
    masks_MHW = logits_MHW > 0
    confidence_M = scores * (logits_MHW.sigmoid() * masks_MHW).sum((1, 2)) / (masks_MHW.sum((1, 2)) + 1e-6)
    names = [CLASS_NAMES[index] for index in (indices % probability_NK.shape[1]).tolist()]
    return [
        Detection(name, _box(mask), confidence, mask=mask)
        for name, confidence, mask in zip(names, confidence_M.tolist(), masks_MHW.cpu().numpy(), strict=True)
        if mask.any()
    ]


def _at_original_size(masks_MHW: Tensor, model_input: DetectorInput, size: Size) -> Tensor:
    padded = interpolate(masks_MHW[:, None], model_input.pixels_CHW.shape[1:], mode="bilinear", align_corners=False)
    height, width = model_input.size
    return interpolate(padded[:, :, :height, :width], size, mode="bilinear", align_corners=False)[:, 0]


def _box(mask: NDArray[np.bool_]) -> Box:
    """Return the box from the first to just behind the last pixel of a mask."""
    (down,), (right,) = np.nonzero(mask.any(axis=1)), np.nonzero(mask.any(axis=0))
    return float(right[0]), float(down[0]), float(right[-1] + 1), float(down[-1] + 1)
