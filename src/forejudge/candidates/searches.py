"""Searches of many prompts on disk, in GenEval's folder layout with a record beside each image.

    00000/metadata.jsonl        the prompt's line
    00000/samples/0000.png      the winner of the first image's candidates
    00000/results/0000.json     the record of its search

An image is complete when both of its files are there. The image is written last.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from forejudge.errors import InvalidRequest, OutputError
from forejudge.files import write_image, write_text
from forejudge.prompts.prompt_file import PromptLine

if TYPE_CHECKING:
    from forejudge import Result


@dataclass(frozen=True)
class Sample:
    """One image of one prompt, made or to be made; `folder` is its prompt's."""

    folder: Path
    line: PromptLine
    image_index: int

    @property
    def metadata(self) -> Path:
        """The prompt's file, which all its samples share."""
        return self.folder / "metadata.jsonl"

    @property
    def record(self) -> Path:
        """The file that says how the picture was found."""
        return self.folder / "results" / f"{self.image_index:04}.json"

    @property
    def image(self) -> Path:
        """The winner's file."""
        return self.folder / "samples" / f"{self.image_index:04}.png"

    @property
    def is_complete(self) -> bool:
        """Whether nothing is left to do."""
        return self.image.is_file() and self.record.is_file()

    def check_prompt(self) -> None:
        """Raises InvalidRequest where the folder is another prompt's."""
        if (
            self.metadata.is_file()
            and (found := self.metadata.read_text(encoding="utf-8").strip()) != self.line.metadata
        ):
            raise InvalidRequest(
                f"{self.metadata} holds {found[:80]}, but {self.line.where} is {self.line.metadata[:80]}: "
                "choose another --out, or the same prompts to go on with it"
            )

    def read_record(self) -> dict[str, Any]:
        """How the picture was found. Raises OutputError for a record that was changed by hand."""
        try:
            record: dict[str, Any] = json.loads(self.record.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise OutputError(f"{self.record} cannot be read ({error}): delete it and run again") from None
        return record

    def write(self, result: "Result") -> None:
        """Complete it. Raises OutputError."""
        if not self.metadata.is_file():
            write_text(self.metadata, self.line.metadata + "\n")
        write_text(self.record, result.record.model_dump_json(indent=2) + "\n")
        write_image(self.image, result.image)


def lay_out(out: Path, prompts: list[PromptLine], images_per_prompt: int) -> list[Sample]:
    """All samples, prompt by prompt. Raises InvalidRequest where a prompt's folder is another's."""
    samples = [
        Sample(out / f"{number:05}", line, image_index)
        for number, line in enumerate(prompts)
        for image_index in range(images_per_prompt)
    ]
    for sample in samples:
        sample.check_prompt()
    return samples
