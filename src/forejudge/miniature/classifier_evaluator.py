"""The miniature's second judge: what its classifier sees, by GenEval's rules."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from PIL.Image import Image
from transformers import ResNetForImageClassification

from forejudge.checkpoint import weights_name
from forejudge.errors import CheckpointError
from forejudge.evaluation.detection import Detection
from forejudge.hub import local_folder
from forejudge.library_models import load_library_model
from forejudge.miniature.classifier import LABELS, classify
from forejudge.miniature.evaluator import RulesEvaluator
from forejudge.miniature.scene import IMAGE_SIZE


class ClassifierEvaluator(RulesEvaluator):
    """Sees with a classifier; its name says which weights see. Detections are in pixels of 64 x 64 pictures."""

    def __init__(self, name: str, model: ResNetForImageClassification) -> None:
        self.name, self._model = f"classifier-miniature ({name})", model

    @classmethod
    def from_pretrained(cls, name: str, device: torch.device) -> "ClassifierEvaluator":
        """Load a folder that a build of the miniature has left. Raises CheckpointError for any other."""
        folder = local_folder(name)
        model: Any = load_library_model(ResNetForImageClassification, folder, torch.float32)
        if tuple(model.config.id2label.values()) != LABELS:
            raise CheckpointError(f"{folder} holds no classifier of the miniature: its labels are others")
        return cls(weights_name(name, folder), model.eval().to(device))

    def _see(self, pictures: Sequence[Image]) -> list[list[Detection]]:
        size = IMAGE_SIZE, IMAGE_SIZE
        pixels_NHW3 = np.stack([np.asarray(picture.convert("RGB").resize(size)) for picture in pictures])
        return classify(self._model, torch.from_numpy(pixels_NHW3).permute(0, 3, 1, 2).to(self._model.device) / 255)
