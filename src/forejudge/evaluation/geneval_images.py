"""Pictures in GenEval's folder layout, as its evaluator finds them:

    00000/metadata.jsonl        the prompt's line
    00000/samples/0000.png      a picture of it; .jpg is taken too

Folders and pictures have digits for names. What cannot be judged is told apart from what can.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from forejudge.errors import InvalidRequest
from forejudge.evaluation.metadata import PromptMetadata
from forejudge.evaluation.prompts_file import PromptLine, read_lines

_PICTURE = re.compile(r"\d+\.(png|jpe?g)")

Check = Callable[[Sequence[PromptLine]], None]
"""Raises InvalidRequest for a line that cannot be judged by: `Evaluator.check`."""


@dataclass(frozen=True)
class GivenPicture:
    """A file, and what it is judged by."""

    path: Path
    line: PromptLine
    metadata: PromptMetadata


@dataclass(frozen=True)
class LeftOut:
    """So many pictures that are not judged; `reason` is one line that names a path."""

    reason: str
    pictures: int


@dataclass(frozen=True)
class _PromptFolder:
    path: Path
    pictures: tuple[Path, ...]

    @classmethod
    def at(cls, path: Path) -> "_PromptFolder":
        samples = path / "samples"
        files = sorted(samples.iterdir()) if samples.is_dir() else []
        return cls(path, tuple(each for each in files if _PICTURE.fullmatch(each.name) and each.is_file()))

    def read(self, check: Check) -> tuple[PromptLine, PromptMetadata]:
        """The prompt's line. Raises InvalidRequest that names the file."""
        file = self.path / "metadata.jsonl"
        text = " ".join(read_lines(file, "line of GenEval's metadata").values())
        metadata = PromptLine("", text, str(file)).geneval_metadata()
        line = PromptLine(metadata.prompt, text, str(file))
        check([line])
        return line, metadata


def find_pictures(folder: Path, check: Check) -> tuple[list[GivenPicture], list[LeftOut]]:
    """All pictures in the order of their names, and what is left out.

    Left out are prompts without metadata that can be judged by, prompts that came before, and pictures that are
    missing where other prompts have more. Raises InvalidRequest for a folder that is not laid out like this.
    """
    folders = _prompt_folders(folder)
    each_has = max(len(found.pictures) for found in folders)
    given: list[GivenPicture] = []
    left_out: list[LeftOut] = []
    seen: dict[PromptMetadata, Path] = {}
    for found in folders:
        try:
            line, metadata = found.read(check)
            _refuse_doubled(found.path, metadata, seen)
        except InvalidRequest as error:
            left_out.append(LeftOut(str(error), len(found.pictures)))
            continue
        given += [GivenPicture(path, line, metadata) for path in found.pictures]
        left_out += _missing(found, each_has)
    return given, left_out


def _prompt_folders(folder: Path) -> list[_PromptFolder]:
    if not folder.is_dir():
        raise InvalidRequest(f"{folder} is no folder: expected one in GenEval's layout")
    paths = sorted(path for path in folder.iterdir() if path.is_dir() and path.name.isdigit())
    folders = [_PromptFolder.at(path) for path in paths]
    if not any(found.pictures for found in folders):
        raise InvalidRequest(
            f"{folder} holds no pictures in GenEval's layout: expected 00000/metadata.jsonl and 00000/samples/0000.png"
        )
    return folders


def _refuse_doubled(path: Path, metadata: PromptMetadata, seen: dict[PromptMetadata, Path]) -> None:
    before = seen.setdefault(metadata, path)
    if before != path:
        raise InvalidRequest(f"{path} has the prompt of {before}, which would count twice")


def _missing(found: _PromptFolder, each_has: int) -> list[LeftOut]:
    missing = each_has - len(found.pictures)
    if not missing:
        return []
    reason = (
        f"{found.path / 'samples'} holds {len(found.pictures)} of {each_has} pictures, as many as other prompts have"
    )
    return [LeftOut(reason, missing)]
