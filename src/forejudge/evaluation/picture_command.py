"""A command of the user's that is shown pictures: one JSON line a picture in, one JSON line a picture out."""

import json
import shlex
import subprocess
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TypeVar

from PIL.Image import Image
from pydantic import BaseModel, ValidationError

from forejudge.errors import CommandFailed, InvalidRequest
from forejudge.evaluation.prompts_file import PromptLine

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

    def __call__(self, lines: Sequence[PromptLine], pictures: Sequence[Image], kind: type[Answer]) -> list[Answer]:
        """What the command answers to each picture, which goes with the line at its place.

        Raises CommandFailed for another status than 0, and for answers that are too few, too many or not of `kind`.
        """
        with TemporaryDirectory(prefix="forejudge-") as folder:
            asked = [
                _question(line, _saved(picture, Path(folder) / f"{place:05}.png"))
                for place, (line, picture) in enumerate(zip(lines, pictures, strict=True))
            ]
            ended = self._run("".join(f"{question}\n" for question in asked))
        if ended.returncode:
            raise self._failure(f"ended with status {ended.returncode}", ended)
        answers = [text for text in ended.stdout.split("\n") if text.strip()]
        if len(answers) != len(pictures):
            raise self._failure(f"gave {len(answers)} lines for {len(pictures)} pictures, expected one each", ended)
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


def _saved(picture: Image, path: Path) -> Path:
    picture.save(path)
    return path


def _question(line: PromptLine, path: Path) -> str:
    return json.dumps({"image": str(path), "prompt": line.prompt, "metadata": json.loads(line.metadata)})
