"""GenEval's evaluator: its detector, its color model and its rules."""

from collections.abc import Sequence
from dataclasses import replace

import torch
from PIL.Image import Image

from forejudge.errors import InvalidRequest
from forejudge.evaluation.coco import CLASS_NAMES
from forejudge.evaluation.color_model import ColorModel
from forejudge.evaluation.detection import Detection
from forejudge.evaluation.evaluators import Evaluator, Judgement
from forejudge.evaluation.geneval import DEFAULT_THRESHOLDS, judge_image, keep_detections
from forejudge.evaluation.metadata import PromptMetadata
from forejudge.evaluation.object_detector import ObjectDetector
from forejudge.evaluation.prompts_file import PromptLine

NOT_COMPARABLE = "not comparable with GenEval's figures"


class GenEvalEvaluator(Evaluator):
    """Judges by GenEval's metadata. Its name says which weights judge, and whether figures are GenEval's."""

    def __init__(self, detector: ObjectDetector, color_model: ColorModel) -> None:
        self._detector, self._color_model = detector, color_model
        self.name = f"geneval (detector {detector.name}, colors by {color_model.name})"
        if not detector.is_genevals:
            self.name += f", {NOT_COMPARABLE}"

    @classmethod
    def from_pretrained(cls, detector: str, color_model: str, device: torch.device) -> "GenEvalEvaluator":
        """Load both by folder or hub id. Raises CheckpointError."""
        return cls(ObjectDetector.from_pretrained(detector, device), ColorModel.from_pretrained(color_model, device))

    def check(self, lines: Sequence[PromptLine]) -> None:
        """See `Evaluator.check`: without metadata, or of a class that the detector does not know."""
        for line in lines:
            metadata = line.geneval_metadata()
            for clause in (*metadata.include, *metadata.exclude):
                if clause.class_name not in CLASS_NAMES:
                    raise InvalidRequest(
                        f"{line.where}: the detector knows no {clause.class_name!r}, only COCO's classes"
                    )

    def __call__(self, lines: Sequence[PromptLine], pictures: Sequence[Image]) -> list[Judgement]:
        """See `Evaluator.__call__`."""
        return [self._judged(line, picture) for line, picture in zip(lines, pictures, strict=True)]

    def _judged(self, line: PromptLine, picture: Image) -> Judgement:
        metadata = line.geneval_metadata()
        found = self._with_colors(picture, self._detector(picture, DEFAULT_THRESHOLDS.detection), metadata)
        verdict = judge_image(found, metadata)
        # Masks are large, and whoever keeps a judgement has no use for them.
        return Judgement(verdict.correct, verdict.reason, tuple(replace(each, mask=None) for each in found))

    def _with_colors(self, picture: Image, found: list[Detection], metadata: PromptMetadata) -> list[Detection]:
        """Colors are read of those objects alone that a clause asks a color of."""
        kept = keep_detections(found, metadata)
        colors: dict[int, str] = {}
        for required in metadata.include:
            asked = kept.get(required.class_name, [])[: required.count]
            if required.color is not None and len(asked) == required.count:
                colors |= zip(map(id, asked), self._color_model(picture, asked), strict=True)
        return [replace(each, color=colors.get(id(each))) for each in found]
