"""GenEval's evaluator: its detector, its color model (CLIP) and its rules.

GenEval asks CLIP ViT-L/14 of OpenAI in half precision on a GPU; here CLIP runs in float32. Shape letters: N objects,
D width of CLIP's shared space, C colors.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn.functional import normalize
from transformers import AutoTokenizer, CLIPModel

from forejudge.checkpoint import weights_name
from forejudge.device import exact_float32
from forejudge.errors import CheckpointError
from forejudge.evaluators.base import Evaluation, Evaluator, check_classes
from forejudge.evaluators.detector import CLASS_NAMES, ObjectDetector
from forejudge.evaluators.geneval_rules import DEFAULT_THRESHOLDS, Detection, evaluate_image, keep_detections
from forejudge.hub import local_folder
from forejudge.library_models import load_library_model, load_tokenizer
from forejudge.prompts.geneval import COLORS, Color, PromptMetadata
from forejudge.prompts.prompt_file import PromptLine

OPENAI_CLIP = "openai/clip-vit-large-patch14"
NOT_COMPARABLE = "not comparable with GenEval's figures"

_TEMPLATES = ("a photo of a {color} {name}", "a photo of a {color}-colored {name}", "a photo of a {color} object")
_BACKGROUND = "#999"
_MEAN = torch.tensor([0.48145466, 0.4578275, 0.40821073])[:, None, None]
_STD = torch.tensor([0.26862954, 0.26130258, 0.27577711])[:, None, None]


class ColorModel:
    """CLIP as GenEval's classifier of an object's color. `name` identifies its weights."""

    def __init__(self, name: str, model: CLIPModel, tokenizer: Any) -> None:
        self.name, self._tokenizer = name, tokenizer
        self._model: Any = model.eval().requires_grad_(False)
        self._classifiers: dict[str, Tensor] = {}

    @classmethod
    def from_pretrained(cls, name: str, device: torch.device) -> "ColorModel":
        """Load a folder or hub id that holds a `CLIPModel` and its tokenizer.

        Raises CheckpointError, also for an activation other than quick GELU, which OpenAI's weights were trained with.
        """
        folder = local_folder(name)
        model: Any = load_library_model(CLIPModel, folder, torch.float32, allow_unexpected_keys=True)
        for part in (model.config.text_config, model.config.vision_config):
            if part.hidden_act != "quick_gelu":
                raise CheckpointError(f"{name} has the activation {part.hidden_act}, expected OpenAI's quick_gelu")
        return cls(weights_name(name, folder), model.to(device), load_tokenizer(AutoTokenizer, folder))

    @torch.no_grad()
    def __call__(self, image: Image.Image, detections: Sequence[Detection]) -> list[Color]:
        """Return the most likely of GenEval's ten colors for each object; all objects must be of one class.

        Raises CheckpointError where the model returns NaN.
        """
        if not detections:
            return []
        side = self._model.config.vision_config.image_size
        pixels_N3HW = torch.stack([_clip_pixels(cut_out(image, each), side) for each in detections])
        with exact_float32():
            pooled = self._model.vision_model(pixel_values=pixels_N3HW.to(self._model.device)).pooler_output
            features_ND = normalize(self._model.visual_projection(pooled), dim=-1)
            similarity_NC = features_ND @ self._classifier(detections[0].class_name).T
        if not similarity_NC.isfinite().all():
            raise CheckpointError(f"color model {self.name} returned NaN for an image: its weights are damaged")
        return [COLORS[index] for index in similarity_NC.argmax(dim=1).tolist()]

    def _classifier(self, class_name: str) -> Tensor:
        """Return a unit vector per color, the mean over three sentences: (C, D)."""
        if class_name not in self._classifiers:
            texts = [text.format(color=color, name=class_name) for color in COLORS for text in _TEMPLATES]
            tokens = self._tokenizer(texts, padding=True, return_tensors="pt").to(self._model.device)
            pooled = self._model.text_model(tokens.input_ids, tokens.attention_mask).pooler_output
            directions = normalize(self._model.text_projection(pooled), dim=-1).unflatten(0, (len(COLORS), -1))
            self._classifiers[class_name] = normalize(directions.mean(dim=1), dim=-1)
        return self._classifiers[class_name]


class GenEvalEvaluator(Evaluator):
    """Evaluator by GenEval's metadata. Its name identifies the weights and says whether figures are GenEval's."""

    def __init__(self, detector: ObjectDetector, color_model: ColorModel) -> None:
        self._detector, self._color_model = detector, color_model
        self.name = f"geneval (detector {detector.name}, colors by {color_model.name})"
        if not detector.is_genevals:
            self.name += f", {NOT_COMPARABLE}"

    @classmethod
    def from_pretrained(cls, detector: str, color_model: str, device: torch.device) -> "GenEvalEvaluator":
        """Load both models by folder or hub id. Raises CheckpointError."""
        return cls(ObjectDetector.from_pretrained(detector, device), ColorModel.from_pretrained(color_model, device))

    def check(self, lines: Sequence[PromptLine]) -> None:
        """See `Evaluator.check`. Refuses a line without metadata, or with a class that the detector does not know."""
        check_classes(lines, CLASS_NAMES, "COCO's classes")

    def __call__(self, lines: Sequence[PromptLine], images: Sequence[Image.Image]) -> list[Evaluation]:
        """See `Evaluator.__call__`."""
        return [self._evaluate(line, image) for line, image in zip(lines, images, strict=True)]

    def _evaluate(self, line: PromptLine, image: Image.Image) -> Evaluation:
        metadata = line.geneval_metadata()
        detections = self._detector(image, DEFAULT_THRESHOLDS.detection)
        detections = self._with_colors(image, detections, metadata)
        verdict = evaluate_image(detections, metadata)
        # Masks are large, and nothing that keeps an evaluation uses them.
        return Evaluation(verdict.correct, verdict.reason, tuple(replace(each, mask=None) for each in detections))

    def _with_colors(
        self, image: Image.Image, detections: list[Detection], metadata: PromptMetadata
    ) -> list[Detection]:
        """Return the detections with the colors of those whose color a clause asks for."""
        kept = keep_detections(detections, metadata)
        colors: dict[int, str] = {}
        for required in metadata.include:
            asked = kept.get(required.class_name, [])[: required.count]
            if required.color is not None and len(asked) == required.count:
                colors |= zip(map(id, asked), self._color_model(image, asked), strict=True)
        return [replace(each, color=colors.get(id(each))) for each in detections]


def cut_out(image: Image.Image, detection: Detection) -> Image.Image:
    """Crop an object's box, with gray outside its mask."""
    image = image.convert("RGB")
    if detection.mask is not None:
        blank = Image.new("RGB", image.size, _BACKGROUND)
        image = Image.composite(image, blank, Image.fromarray(detection.mask))
    return image.crop(detection.box)  # which rounds


def _clip_pixels(image: Image.Image, side: int) -> Tensor:
    """Resize the shorter edge to `side`, crop the middle and normalize, as open_clip does: (3, side, side)."""
    shorter = min(image.size)
    width, height = (int(side * edge / shorter) for edge in image.size)
    resized = image.resize((width, height), Image.Resampling.BICUBIC)
    left, top = round((width - side) / 2), round((height - side) / 2)
    cropped = np.array(resized.crop((left, top, left + side, top + side)))
    return (torch.from_numpy(cropped).permute(2, 0, 1).float() / 255 - _MEAN) / _STD
