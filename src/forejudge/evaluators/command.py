"""Evaluators that are a user's command: one JSON line per image in, one JSON line per image out."""

import json
import shlex
import subprocess
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, TypeVar

from PIL.Image import Image
from pydantic import BaseModel, Field, ValidationError

from forejudge.errors import CommandFailed, InvalidRequest, validation_message
from forejudge.evaluators.base import Evaluation, Evaluator, ReportedDetection
from forejudge.evaluators.geneval_rules import Detection
from forejudge.prompts.prompt_file import PromptLine

Answer = TypeVar("Answer", bound=BaseModel)


class _Answer(BaseModel):
    correct: Annotated[bool, Field(strict=True)]
    reason: str = ""
    detections: tuple[ReportedDetection, ...] = ()


class CommandEvaluator(Evaluator):
    """Evaluator that runs a command once per call.

    The command answers {"correct": true or false} per image, optionally with "reason" and "detections". Raises
    InvalidRequest for a command with unmatched quotes, CommandFailed where it does not evaluate every image.
    """

    def __init__(self, command: str) -> None:
        self.name, self._command = command, ImageCommand(command)

    def __call__(self, lines: Sequence[PromptLine], images: Sequence[Image]) -> list[Evaluation]:
        """See `Evaluator.__call__`."""
        answers = self._command(lines, images, _Answer)
        return [Evaluation(answer.correct, answer.reason, _detections(answer)) for answer in answers]


def _detections(answer: _Answer) -> tuple[Detection, ...]:
    return tuple(Detection(**reported.model_dump(by_alias=False)) for reported in answer.detections)


class ImageCommand:
    """Command that runs without a shell, once per call.

    Its input lines are {"image": path of a PNG, "prompt": text, "metadata": object}. Raises InvalidRequest for a
    command with unmatched quotes.
    """

    def __init__(self, command: str) -> None:
        self.command = command
        try:
            self.words = shlex.split(command)
        except ValueError as error:
            raise InvalidRequest(f"the command {command!r} cannot be parsed: {error}") from None

    def __call__(
        self, lines: Sequence[PromptLine], images: Sequence[Image], answer_class: type[Answer]
    ) -> list[Answer]:
        """Run the command and return its answer for each image, which belongs to the line at its index.

        Raises CommandFailed for a status other than 0, for too few or too many answers, and for an answer that is not
        an `answer_class`.
        """
        with TemporaryDirectory(prefix="forejudge-") as folder:
            questions = [
                _question(line, _save(image, Path(folder) / f"{index:05}.png"))
                for index, (line, image) in enumerate(zip(lines, images, strict=True))
            ]
            completed = self._run("".join(f"{question}\n" for question in questions))
        if completed.returncode:
            raise self._failure(f"ended with status {completed.returncode}", completed)
        answers = [text for text in completed.stdout.split("\n") if text.strip()]
        if len(answers) != len(images):
            raise self._failure(f"gave {len(answers)} lines for {len(images)} images, expected one each", completed)
        return [self._parse(text, answer_class, number, completed) for number, text in enumerate(answers, start=1)]

    def _run(self, questions: str) -> subprocess.CompletedProcess[str]:
        try:
            return subprocess.run(self.words, input=questions, capture_output=True, encoding="utf-8", errors="replace")
        except OSError as error:
            raise CommandFailed(f"{self.command!r} cannot be started ({error.strerror})") from None

    def _parse(
        self, text: str, answer_class: type[Answer], number: int, completed: subprocess.CompletedProcess[str]
    ) -> Answer:
        try:
            return answer_class.model_validate_json(text)
        except ValidationError as error:
            problem = f"answered {text[:80]!r} in line {number} ({validation_message(error)})"
            raise self._failure(problem, completed) from None

    def _failure(self, problem: str, completed: subprocess.CompletedProcess[str]) -> CommandFailed:
        last_line = completed.stderr.strip().split("\n")[-1]
        return CommandFailed(f"{self.command!r} {problem}; its last line on stderr: {last_line[:300] or 'none'}")


def _save(image: Image, path: Path) -> Path:
    image.save(path)
    return path


def _question(line: PromptLine, path: Path) -> str:
    return json.dumps({"image": str(path), "prompt": line.prompt, "metadata": json.loads(line.metadata)})
