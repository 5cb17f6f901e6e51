"""Evaluators that are a user's command: one JSON line per image in, one JSON line per image out."""

import json
import os
import shlex
import subprocess
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from signal import SIGKILL
from tempfile import TemporaryDirectory
from typing import Annotated, TypeVar

from PIL.Image import Image
from pydantic import BaseModel, Field, ValidationError

from forejudge.errors import CommandFailed, InvalidRequest, OutputError, one_line, validation_message
from forejudge.evaluators.base import Evaluation, Evaluator, ReportedDetection
from forejudge.evaluators.geneval_rules import Detection
from forejudge.prompts.prompt_file import PromptLine

Answer = TypeVar("Answer", bound=BaseModel)

LOADING_SECONDS, SECONDS_PER_IMAGE = 1800, 120
"""Time limit of one call: a command that takes longer hangs."""


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

        Raises CommandFailed for a status other than 0, for too few or too many answers, for an answer that is not an
        `answer_class`, and past the time limit; OutputError where the images cannot be written.
        """
        with TemporaryDirectory(prefix="forejudge-") as folder:
            paths = [Path(folder) / f"{index:05}.png" for index in range(len(images))]
            try:
                for path, image in zip(paths, images, strict=True):
                    image.save(path)
            except OSError as error:
                raise OutputError(
                    f"{folder} cannot be written ({error.strerror}): free some space, or name another disk by TMPDIR"
                ) from None
            questions = [_question(line, path) for line, path in zip(lines, paths, strict=True)]
            completed = self._run("".join(f"{question}\n" for question in questions), len(images))
        if completed.returncode:
            raise self._failure(f"ended with status {completed.returncode}", completed)
        answers = [text for text in completed.stdout.split("\n") if text.strip()]
        if len(answers) != len(images):
            raise self._failure(f"gave {len(answers)} lines for {len(images)} images, expected one each", completed)
        return [self._parse(text, answer_class, number, completed) for number, text in enumerate(answers, start=1)]

    def _run(self, questions: str, num_images: int) -> subprocess.CompletedProcess[str]:
        """Run the command in a session of its own, so that all it started ends with it."""
        seconds = LOADING_SECONDS + SECONDS_PER_IMAGE * num_images
        pipe = subprocess.PIPE
        try:
            process = subprocess.Popen(
                self.words,
                stdin=pipe,
                stdout=pipe,
                stderr=pipe,
                encoding="utf-8",
                errors="replace",
                start_new_session=True,
            )
        except OSError as error:
            raise CommandFailed(f"{self.command!r} cannot be started ({error.strerror})") from None
        with process:
            try:
                stdout, stderr = process.communicate(questions, timeout=seconds)
            except BaseException as error:
                with suppress(ProcessLookupError):
                    os.killpg(process.pid, SIGKILL)
                if isinstance(error, subprocess.TimeoutExpired):
                    raise CommandFailed(
                        f"{self.command!r} was stopped, it gave no answer for {num_images} images in {seconds:g} s: "
                        "try it by hand with one line on stdin"
                    ) from None
                raise
        return subprocess.CompletedProcess(self.words, process.returncode, stdout, stderr)

    def _parse(
        self, text: str, answer_class: type[Answer], number: int, completed: subprocess.CompletedProcess[str]
    ) -> Answer:
        try:
            return answer_class.model_validate_json(text)
        except ValidationError as error:
            problem = f"answered {text[:80]!r} in line {number} ({validation_message(error)})"
            raise self._failure(problem, completed) from None

    def _failure(self, problem: str, completed: subprocess.CompletedProcess[str]) -> CommandFailed:
        last_line = one_line(completed.stderr.strip().rsplit("\n", 1)[-1])
        return CommandFailed(f"{self.command!r} {problem}; its last line on stderr: {last_line or 'none'}")


def _question(line: PromptLine, path: Path) -> str:
    return json.dumps({"image": str(path), "prompt": line.prompt, "metadata": json.loads(line.metadata)})
