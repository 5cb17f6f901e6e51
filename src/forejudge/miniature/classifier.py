"""Second evaluator of the miniature: a small ResNet that classifies the object in each quadrant of an image.

It shares neither outlines nor thresholds with the detector, so that it can evaluate a verifier that was trained on the
detector's labels. It finds at most one object per quadrant. The strings in LABELS belong to the trained weights.

Shape letters: N images, Q quadrants (4, in reading order), K kinds and then none (13), C colors and then none (11), L
labels (K + C), H and W pixels, S the side of a crop.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL.Image import Image
from torch import Tensor
from transformers import ResNetConfig, ResNetForImageClassification

from forejudge.checkpoint import weights_name
from forejudge.device import exact_float32
from forejudge.errors import CheckpointError
from forejudge.evaluators.geneval_rules import Box, Detection
from forejudge.hub import local_folder
from forejudge.library_models import load_library_model
from forejudge.miniature.evaluator import RulesEvaluator
from forejudge.miniature.scenes import COLOR_NAMES, IMAGE_SIZE, KINDS, MAX_RADIUS, MIN_RADIUS

NO_KIND, NO_COLOR = len(KINDS), len(COLOR_NAMES)
LABELS = (*KINDS, "no object", *COLOR_NAMES, "no colour")
QUADRANTS = 4
_CELL = IMAGE_SIZE // 2
_CROP_MARGIN = 4  # pixels around a quadrant that its crop includes, because objects drift
_MIN_CONFIDENCE = 0.05  # below, an object is not reported


class ClassifierEvaluator(RulesEvaluator):
    """Evaluator by a classifier. Its name identifies the weights; detections are in pixels of 64 x 64 images."""

    def __init__(self, name: str, model: ResNetForImageClassification) -> None:
        self.name, self._model = f"classifier-miniature ({name})", model

    @classmethod
    def from_pretrained(cls, name: str, device: torch.device) -> "ClassifierEvaluator":
        """Load the folder of a classifier that `python -m research build` wrote. Raises CheckpointError for another."""
        folder = local_folder(name)
        model: Any = load_library_model(ResNetForImageClassification, folder, torch.float32)
        if tuple(model.config.id2label.values()) != LABELS:
            raise CheckpointError(f"{folder} holds no classifier of the miniature: its labels differ")
        return cls(weights_name(name, folder), model.eval().to(device))

    def _detect(self, images: Sequence[Image]) -> list[list[Detection]]:
        size = IMAGE_SIZE, IMAGE_SIZE
        pixels_NHW3 = np.stack([np.asarray(image.convert("RGB").resize(size)) for image in images])
        return classify(self._model, torch.from_numpy(pixels_NHW3).permute(0, 3, 1, 2).to(self._model.device) / 255)


def new_classifier(width: int) -> ResNetForImageClassification:
    """Return an untrained classifier of crops around quadrants; its channels grow from `width` to four times that."""
    return ResNetForImageClassification(
        ResNetConfig(
            embedding_size=width,
            hidden_sizes=[width, 2 * width, 4 * width],
            depths=[1, 1, 1],
            layer_type="basic",
            id2label=dict(enumerate(LABELS)),
        )
    )


def quadrant_logits(model: ResNetForImageClassification, images_N3HW: Tensor) -> tuple[Tensor, Tensor]:
    """Compute the logits of kinds (N, Q, K) and colors (N, Q, C) of each quadrant; images are 64 x 64, in [0, 1]."""
    padded_N3HW = F.pad(2 * images_N3HW - 1, (_CROP_MARGIN,) * 4, mode="replicate")
    side = _CELL + 2 * _CROP_MARGIN
    crops_N322SS = padded_N3HW.unfold(2, side, _CELL).unfold(3, side, _CELL)
    crops = crops_N322SS.permute(0, 2, 3, 1, 4, 5).flatten(0, 2)
    logits_NQL = model(crops).logits.unflatten(0, (-1, QUADRANTS))
    return logits_NQL[..., : NO_KIND + 1], logits_NQL[..., NO_KIND + 1 :]


@torch.no_grad()
def classify(model: ResNetForImageClassification, images_N3HW: Tensor) -> list[list[Detection]]:
    """Return the most likely object of each quadrant of each image, with the probability of its kind as confidence.

    Its box has medium size in the middle of the quadrant; its color is None where "no colour" is the most likely one.
    Raises CheckpointError where the model returns NaN.
    """
    with exact_float32():
        kind_NQK, color_NQC = (logits.softmax(-1).cpu() for logits in quadrant_logits(model, images_N3HW))
    if not (kind_NQK.isfinite().all() and color_NQC.isfinite().all()):
        raise CheckpointError("the classifier returned NaN for an image: its weights are damaged")
    confidence_NQ, best_NQ = kind_NQK[..., :NO_KIND].max(-1)
    rows = zip(best_NQ.tolist(), confidence_NQ.tolist(), color_NQC.argmax(-1).tolist(), strict=True)
    return [_detections(*row) for row in rows]


def _detections(kinds: Sequence[int], confidences: Sequence[float], colors: Sequence[int]) -> list[Detection]:
    return [
        Detection(KINDS[kind], _box(quadrant), confidence, None if color == NO_COLOR else COLOR_NAMES[color])
        for quadrant, (kind, confidence, color) in enumerate(zip(kinds, confidences, colors, strict=True))
        if confidence > _MIN_CONFIDENCE
    ]


def _box(quadrant: int) -> Box:
    x, y = (quadrant % 2 + 0.5) * _CELL, (quadrant // 2 + 0.5) * _CELL
    radius = (MIN_RADIUS + MAX_RADIUS) / 2
    return x - radius, y - radius, x + radius, y + radius
