"""Mask2Former as a detector of COCO's objects, in float32."""

from pathlib import Path
from typing import Any

import torch
from PIL.Image import Image

from forejudge.checkpoint import weights_digest, weights_name
from forejudge.device import exact_float32
from forejudge.errors import CheckpointError
from forejudge.evaluation.detection import Detection
from forejudge.evaluation.mask2former import Mask2Former, check_classes, read_origin
from forejudge.evaluation.mmdet_processing import objects, shown
from forejudge.hub import local_folder
from forejudge.library_models import load_library_model


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
    def __call__(self, picture: Image, least: float = 0.0) -> list[Detection]:
        """Objects with their masks, of those whose confidence can exceed `least`: see `objects`.

        Raises CheckpointError where the model gives no numbers, which is not the same as seeing nothing.
        """
        as_shown = shown(picture)
        with exact_float32():
            (classes_NK,), (masks_NHW,) = self._model(as_shown.pixels_CHW[None].to(self._model.device))
            if not (classes_NK.isfinite().all() and masks_NHW.isfinite().all()):
                raise CheckpointError(f"detector {self.name} gave no numbers for a picture: its weights are damaged")
            return objects(classes_NK, masks_NHW, as_shown, (picture.height, picture.width), least)
