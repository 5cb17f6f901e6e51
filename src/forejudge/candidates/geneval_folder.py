"""Images in the folder layout that GenEval's evaluator reads: the image part of every store.

    00000/metadata.jsonl        the prompt's line
    00000/samples/0000.png      an image of it

Prompts and samples are numbered from 0. Other files and folders beside these do not disturb GenEval's evaluator.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL.Image import Image

from forejudge.checkpoint import checkpoint_errors
from forejudge.errors import InvalidRequest
from forejudge.files import is_file, write_image, write_text
from forejudge.prompts.prompt_file import PromptLine


@dataclass(frozen=True)
class GenEvalFolder:
    """The numbered folder of one prompt."""

    path: Path

    @classmethod
    def of_prompt(cls, folder: Path, prompt: int) -> "GenEvalFolder":
        """Return the folder of the `prompt`-th prompt."""
        return cls(folder / f"{prompt:05}")

    @property
    def metadata_path(self) -> Path:
        """File with the prompt's metadata line."""
        return self.path / "metadata.jsonl"

    @property
    def metadata(self) -> str:
        """The prompt's metadata line. Raises CheckpointError where it cannot be read."""
        with checkpoint_errors(self.metadata_path):
            return self.metadata_path.read_text(encoding="utf-8").strip()

    def sample_path(self, sample: int) -> Path:
        """Return the file of the `sample`-th image."""
        return self.path / "samples" / f"{sample:04}.png"

    def check(self, line: PromptLine) -> None:
        """Raise InvalidRequest where the folder holds another prompt than `line`."""
        if is_file(self.metadata_path) and self.metadata != line.metadata:
            raise InvalidRequest(
                f"{self.metadata_path} holds {self.metadata[:80]}, but {line.where} is {line.metadata[:80]}: choose "
                "another --out, or the same prompts to continue"
            )

    def write(self, metadata: str, images: Sequence[Image]) -> None:
        """Write the metadata line and all images, numbered from 0. Raises OutputError."""
        write_text(self.metadata_path, metadata + "\n")
        for sample, image in enumerate(images):
            write_image(self.sample_path(sample), image)
