"""Who says whether a finished picture is right: a built-in evaluator, a model, or a command of the user's."""

import shlex
import shutil
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pkgutil import resolve_name
from typing import Annotated

from PIL.Image import Image
from pydantic import BaseModel, ConfigDict, Field

from forejudge.errors import InvalidRequest
from forejudge.evaluation.detection import Box, Detection
from forejudge.evaluation.picture_command import PictureCommand
from forejudge.evaluation.prompts_file import PromptLine

GENEVAL = "geneval"
# Evaluators that need no models to be named -> "module:class", made without arguments.
BUILT_IN: dict[str, str] = {"geneval-miniature": "forejudge.miniature.evaluator:MiniatureEvaluator"}
# Evaluators that are one model, named as "kind:FOLDER" -> "module:class", with `from_pretrained(folder, device)`.
OF_A_MODEL: dict[str, str] = {
    "vqa": "forejudge.evaluation.vqa:VqaEvaluator",
    "classifier-miniature": "forejudge.miniature.classifier_evaluator:ClassifierEvaluator",
}


@dataclass(frozen=True)
class Judgement:
    """Whether a picture is right; if not, `reason` says why. `detections` is what was seen, if that is known."""

    correct: bool
    reason: str
    detections: tuple[Detection, ...] = ()


class Evaluator(ABC):
    """Judges pictures by the lines they were drawn from. `name` stands in the rows of what it has judged."""

    name: str

    def check(self, lines: Sequence[PromptLine]) -> None:  # noqa: B027 - most can judge by any line
        """Raises InvalidRequest naming the first line that this evaluator could not judge by."""

    @abstractmethod
    def __call__(self, lines: Sequence[PromptLine], pictures: Sequence[Image]) -> list[Judgement]:
        """One judgement for each picture, which goes with the line at its place."""


class ReportedDetection(BaseModel):
    """A `Detection` as JSON: {"class", "box", "confidence", "color"}, the color only where it was read."""

    model_config = ConfigDict(validate_by_name=True, validate_by_alias=True, serialize_by_alias=True)

    class_name: str = Field(alias="class")
    box: Box
    confidence: Annotated[float, Field(ge=0, le=1)]
    color: str | None = None


class _Answer(BaseModel):
    correct: Annotated[bool, Field(strict=True)]
    reason: str = ""
    detections: tuple[ReportedDetection, ...] = ()


class CommandEvaluator(Evaluator):
    """Asks a command once a call. Its lines are {"correct": true or false}, with "reason" and "detections" if it likes.

    Raises InvalidRequest for a command whose quotes do not match, CommandFailed where it fails to judge all pictures.
    """

    def __init__(self, command: str) -> None:
        self.name, self._command = command, PictureCommand(command)

    def __call__(self, lines: Sequence[PromptLine], pictures: Sequence[Image]) -> list[Judgement]:
        """See `Evaluator.__call__`."""
        answers = self._command(lines, pictures, _Answer)
        return [Judgement(answer.correct, answer.reason, _detections(answer)) for answer in answers]


def _detections(answer: _Answer) -> tuple[Detection, ...]:
    return tuple(Detection(**reported.model_dump(by_alias=False)) for reported in answer.detections)


@dataclass(frozen=True)
class GenEvalModels:
    """What `geneval` judges with: folders or hub ids, None where none was named. Other models run on `device`, too."""

    detector: str | None = None
    color_model: str | None = None
    device: str | None = None


NO_MODELS = GenEvalModels()


def load_evaluator(name: str, models: GenEvalModels = NO_MODELS) -> Evaluator:
    """`geneval` with its models, a built-in evaluator, one that is a model, or a command line whose program is there.

    Raises InvalidRequest for anything else, CheckpointError for models that cannot be loaded.
    """
    if name == GENEVAL:
        return _load_geneval(models)
    if models.detector is not None or models.color_model is not None:
        raise InvalidRequest(f"a detector and a color model go with the evaluator {GENEVAL}, not with {name!r}")
    if name in BUILT_IN:
        built_in: Evaluator = resolve_name(BUILT_IN[name])()
        return built_in
    kind, _, model = name.partition(":")
    return _load_model(kind, model, models.device) if kind in OF_A_MODEL else _command(name)


def _load_model(kind: str, model: str, device: str | None) -> Evaluator:
    if not model:
        raise InvalidRequest(f"the evaluator {kind} needs its model: {kind}:FOLDER")
    from forejudge.device import resolve_device

    evaluator: Evaluator = resolve_name(OF_A_MODEL[kind]).from_pretrained(model, resolve_device(device))
    return evaluator


def _command(name: str) -> Evaluator:
    command = CommandEvaluator(name)
    if not name.strip() or shutil.which(shlex.split(name)[0]) is None:
        known = ", ".join((GENEVAL, *BUILT_IN, *(f"{kind}:FOLDER" for kind in OF_A_MODEL)))
        raise InvalidRequest(f"unknown evaluator {name!r}: expected {known} or a command that can be started here")
    return command


def _load_geneval(models: GenEvalModels) -> Evaluator:
    if models.detector is None:
        raise InvalidRequest(
            f"the evaluator {GENEVAL} needs its detector: make it once from mmdetection's weights with "
            "`forejudge geneval convert-detector WEIGHTS.pth FOLDER`, then give --detector FOLDER"
        )
    from forejudge.device import resolve_device
    from forejudge.evaluation.color_model import OPENAI_CLIP
    from forejudge.evaluation.geneval_evaluator import GenEvalEvaluator

    color_model = models.color_model or OPENAI_CLIP
    return GenEvalEvaluator.from_pretrained(models.detector, color_model, resolve_device(models.device))
