"""Who says whether a finished picture is right: a built-in evaluator, a model, or a command of the user's."""

import json
import shlex
import shutil
import subprocess
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from pkgutil import resolve_name
from tempfile import TemporaryDirectory
from typing import Annotated, TypeVar

import torch
from PIL.Image import Image
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from forejudge.errors import CommandFailed, InvalidRequest
from forejudge.evaluators.color_model import ColorModel
from forejudge.evaluators.detector import CLASS_NAMES, ObjectDetector
from forejudge.evaluators.geneval_rules import DEFAULT_THRESHOLDS, Box, Detection, evaluate_image, keep_detections
from forejudge.prompts.geneval import PromptMetadata
from forejudge.prompts.prompt_file import PromptLine

# FOLDED: A command of the user's that is shown pictures: one JSON line a picture in, one JSON line a picture out.


Answer = TypeVar("Answer", bound=BaseModel)


class PictureCommand:
    """Runs without a shell, once for each call.

    Its input lines are {"image": path of a PNG, "prompt": text, "metadata": object}. Raises InvalidRequest for a
    command whose quotes do not match.
    """

    def __init__(self, command: str) -> None:
        self.command = command
        try:
            self.words = shlex.split(command)
        except ValueError as error:
            raise InvalidRequest(f"the command {command!r} cannot be read: {error}") from None

    def __call__(self, lines: Sequence[PromptLine], images: Sequence[Image], kind: type[Answer]) -> list[Answer]:
        """What the command answers to each picture, which goes with the line at its place.

        Raises CommandFailed for another status than 0, and for answers that are too few, too many or not of `kind`.
        """
        with TemporaryDirectory(prefix="forejudge-") as folder:
            asked = [
                _question(line, _saved(image, Path(folder) / f"{place:05}.png"))
                for place, (line, image) in enumerate(zip(lines, images, strict=True))
            ]
            ended = self._run("".join(f"{question}\n" for question in asked))
        if ended.returncode:
            raise self._failure(f"ended with status {ended.returncode}", ended)
        answers = [text for text in ended.stdout.split("\n") if text.strip()]
        if len(answers) != len(images):
            raise self._failure(f"gave {len(answers)} lines for {len(images)} pictures, expected one each", ended)
        return [self._read(text, kind, number, ended) for number, text in enumerate(answers, start=1)]

    def _run(self, questions: str) -> subprocess.CompletedProcess[str]:
        try:
            return subprocess.run(self.words, input=questions, capture_output=True, encoding="utf-8", errors="replace")
        except OSError as error:
            raise CommandFailed(f"{self.command!r} cannot be started ({error.strerror})") from None

    def _read(self, text: str, kind: type[Answer], number: int, ended: subprocess.CompletedProcess[str]) -> Answer:
        try:
            return kind.model_validate_json(text)
        except ValidationError as error:
            first = error.errors()[0]
            field = f"{'.'.join(map(str, first['loc']))}: " if first["loc"] else ""
            raise self._failure(f"answered {text[:80]!r} in line {number} ({field}{first['msg']})", ended) from None

    def _failure(self, what: str, ended: subprocess.CompletedProcess[str]) -> CommandFailed:
        said = ended.stderr.strip().split("\n")[-1]
        return CommandFailed(f"{self.command!r} {what}; its last line on stderr: {said[:300] or 'none'}")


def _saved(image: Image, path: Path) -> Path:
    image.save(path)
    return path


def _question(line: PromptLine, path: Path) -> str:
    return json.dumps({"image": str(path), "prompt": line.prompt, "metadata": json.loads(line.metadata)})


GENEVAL = "geneval"
# Evaluators that need no models to be named -> "module:class", made without arguments.
BUILT_IN: dict[str, str] = {"geneval-miniature": "forejudge.miniature.plugin:MiniatureEvaluator"}
# Evaluators that are one model, named as "kind:FOLDER" -> "module:class", with `from_pretrained(folder, device)`.
OF_A_MODEL: dict[str, str] = {
    "vqa": "forejudge.evaluators.image_text_to_text:VqaEvaluator",
    "classifier-miniature": "forejudge.miniature.classifier:ClassifierEvaluator",
}


@dataclass(frozen=True)
class Evaluation:
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
    def __call__(self, lines: Sequence[PromptLine], images: Sequence[Image]) -> list[Evaluation]:
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

    def __call__(self, lines: Sequence[PromptLine], images: Sequence[Image]) -> list[Evaluation]:
        """See `Evaluator.__call__`."""
        answers = self._command(lines, images, _Answer)
        return [Evaluation(answer.correct, answer.reason, _detections(answer)) for answer in answers]


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
    from forejudge.evaluators.color_model import OPENAI_CLIP

    color_model = models.color_model or OPENAI_CLIP
    return GenEvalEvaluator.from_pretrained(models.detector, color_model, resolve_device(models.device))


# FOLDED: GenEval's evaluator: its detector, its color model and its rules.


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

    def __call__(self, lines: Sequence[PromptLine], images: Sequence[Image]) -> list[Evaluation]:
        """See `Evaluator.__call__`."""
        return [self._judged(line, image) for line, image in zip(lines, images, strict=True)]

    def _judged(self, line: PromptLine, image: Image) -> Evaluation:
        metadata = line.geneval_metadata()
        found = self._with_colors(image, self._detector(image, DEFAULT_THRESHOLDS.detection), metadata)
        verdict = evaluate_image(found, metadata)
        # Masks are large, and whoever keeps a judgement has no use for them.
        return Evaluation(verdict.correct, verdict.reason, tuple(replace(each, mask=None) for each in found))

    def _with_colors(self, image: Image, found: list[Detection], metadata: PromptMetadata) -> list[Detection]:
        """Colors are read of those objects alone that a clause asks a color of."""
        kept = keep_detections(found, metadata)
        colors: dict[int, str] = {}
        for required in metadata.include:
            asked = kept.get(required.class_name, [])[: required.count]
            if required.color is not None and len(asked) == required.count:
                colors |= zip(map(id, asked), self._color_model(image, asked), strict=True)
        return [replace(each, color=colors.get(id(each))) for each in found]
