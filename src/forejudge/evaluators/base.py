"""Contracts of evaluators and captioners, and both made of a user's function."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Annotated

from PIL.Image import Image
from pydantic import BaseModel, ConfigDict, Field

from forejudge.errors import InvalidRequest
from forejudge.evaluators.geneval_rules import Box, Detection
from forejudge.prompts.prompt_file import PromptLine


@dataclass(frozen=True)
class Evaluation:
    """Verdict on one finished image: correct or not, the reason if not, and the detections where there are any."""

    correct: bool
    reason: str
    detections: tuple[Detection, ...] = ()


class ReportedDetection(BaseModel):
    """`Detection` as JSON: {"class", "box", "confidence", "color"}, the color only where it was read."""

    model_config = ConfigDict(validate_by_name=True, validate_by_alias=True, serialize_by_alias=True)

    class_name: str = Field(alias="class")
    box: Box
    confidence: Annotated[float, Field(ge=0, le=1)]
    color: str | None = None


class Evaluator(ABC):
    """Decides whether finished images fit their prompts. `name` is recorded with every evaluation."""

    name: str

    def check(self, lines: Sequence[PromptLine]) -> None:  # noqa: B027 - most evaluators take any line
        """Raise InvalidRequest naming the first line that this evaluator cannot evaluate by."""

    @abstractmethod
    def __call__(self, lines: Sequence[PromptLine], images: Sequence[Image]) -> list[Evaluation]:
        """Evaluate each image by the prompt line at its index."""


def check_classes(lines: Sequence[PromptLine], known: Collection[str], description: str) -> None:
    """Raise InvalidRequest naming the first line without GenEval's metadata or with a class that is not `known`."""
    for line in lines:
        metadata = line.geneval_metadata()
        for clause in (*metadata.include, *metadata.exclude):
            if clause.class_name not in known:
                raise InvalidRequest(
                    f"{line.where}: the detector knows no {clause.class_name!r}, only {description}: {_some_of(known)}"
                )


def _some_of(names: Collection[str]) -> str:
    return ", ".join([*islice(names, 12), "..."] if len(names) > 12 else names)


class Captioner(ABC):
    """Describes images in words, without their prompts. `name` is recorded with every caption."""

    name: str

    @abstractmethod
    def __call__(self, images: Sequence[Image]) -> list[str]:
        """Return one caption per image, in order; batching changes no caption."""


class FunctionEvaluator(Evaluator):
    """Evaluator made of a function (prompt, image) -> bool or `Evaluation`.

    Raises InvalidRequest for any other return value.
    """

    def __init__(self, function: Callable[[str, Image], object], name: str) -> None:
        self._function, self.name = function, name

    def __call__(self, lines: Sequence[PromptLine], images: Sequence[Image]) -> list[Evaluation]:
        """See `Evaluator.__call__`."""
        return [self._evaluate(line.prompt, image) for line, image in zip(lines, images, strict=True)]

    def _evaluate(self, prompt: str, image: Image) -> Evaluation:
        answer = self._function(prompt, image)
        if isinstance(answer, bool):
            return Evaluation(answer, "")
        if not isinstance(answer, Evaluation):
            raise InvalidRequest(f"evaluator {self.name} returned {answer!r}: expected True, False or an Evaluation")
        return answer


class FunctionCaptioner(Captioner):
    """Captioner made of a function image -> str. Raises InvalidRequest for any other return value."""

    def __init__(self, function: Callable[[Image], object], name: str) -> None:
        self._function, self.name = function, name

    def __call__(self, images: Sequence[Image]) -> list[str]:
        """See `Captioner.__call__`."""
        return [self._caption(image) for image in images]

    def _caption(self, image: Image) -> str:
        caption = self._function(image)
        if not isinstance(caption, str):
            raise InvalidRequest(f"captioner {self.name} returned {caption!r}: expected a str")
        return caption
