"""What an evaluation has drawn, on disk in GenEval's layout: a folder a prompt, there whole or not at all.

settings.json                what decides what is drawn and said; a folder goes on only with the same
00000/metadata.jsonl         the prompt's line
00000/samples/0000.png       the candidates of the first seed, image by image
00000/images.jsonl           a line for every candidate: what does each evaluator say of it, and each verifier
"""

import hashlib
import json
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL.Image import Image
from pydantic import BaseModel, ConfigDict

from forejudge.checkpoint import read_config
from forejudge.errors import CheckpointError, InvalidRequest
from forejudge.files import whole_folder, write_image, write_shared_text, write_text
from forejudge.library_calls import named_file

SETTINGS_FILE, IMAGES_FILE, METADATA_FILE = "settings.json", "images.jsonl", "metadata.jsonl"


class EvaluationSettings(BaseModel):
    """What decides the rows: `revision`, `benchmark_digest` and the values of `verifiers` tell weights and prompts.

    `reads` names by verifier the stages at which it judges, `second_evaluators` are names, which tell their weights.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    generator: str
    revision: str
    dtype: str
    benchmark: str
    benchmark_digest: str
    evaluator: str
    verifiers: dict[str, str]
    reads: dict[str, str]
    prompts: int
    seeds: int
    images_per_prompt: int
    candidates: int
    steps: int
    second_evaluators: tuple[str, ...] = ()

    @property
    def digest(self) -> str:
        """What tells these settings from any others: 12 hexadecimal digits."""
        return hashlib.sha256(self.model_dump_json().encode()).hexdigest()[:12]


@dataclass(frozen=True)
class EvaluationFolder:
    """A folder and what is in it; prompts go by their number in the benchmark."""

    path: Path

    @property
    def settings(self) -> EvaluationSettings:
        """Raises CheckpointError where there are none."""
        return read_config(self.path / SETTINGS_FILE, EvaluationSettings)

    def begin(self, settings: EvaluationSettings) -> None:
        """Raises InvalidRequest, naming what differs, where it was begun with other settings."""
        if (self.path / SETTINGS_FILE).exists():
            check_equal(self.path, self.settings, settings)
        write_shared_text(self.path / SETTINGS_FILE, settings.model_dump_json(indent=2) + "\n")

    def has(self, prompt: int) -> bool:
        """Whether all of a prompt is there."""
        return self._folder(prompt).is_dir()

    def write(self, prompt: int, metadata: str, rows: Sequence[dict[str, Any]], samples: Sequence[Image]) -> None:
        """Put a prompt there in one go. Raises OutputError where that fails."""
        with whole_folder(self._folder(prompt)) as unfinished:
            write_text(unfinished / METADATA_FILE, metadata + "\n")
            write_text(unfinished / IMAGES_FILE, "".join(json.dumps(row) + "\n" for row in rows))
            for number, picture in enumerate(samples):
                write_image(unfinished / "samples" / f"{number:04d}.png", picture)

    def rows(self, prompt: int) -> list[dict[str, Any]]:
        """A prompt's candidates in the order in which they were written. Raises CheckpointError."""
        path = self._folder(prompt) / IMAGES_FILE
        with named_file(path):
            return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]

    def metadata(self, prompt: int) -> str:
        """A prompt's line. Raises CheckpointError."""
        path = self._folder(prompt) / METADATA_FILE
        with named_file(path):
            return path.read_text(encoding="utf-8").strip()

    def sample(self, prompt: int, name: str) -> Path:
        """A picture that was kept of a prompt, by the name its row says."""
        return self._folder(prompt) / "samples" / name

    @property
    def missing(self) -> list[int]:
        """The prompts that are not there yet."""
        return [prompt for prompt in range(self.settings.prompts) if not self.has(prompt)]

    def take_over(self, other: "EvaluationFolder") -> int:
        """Copy the prompts of another part of the same evaluation; how many were new here."""
        check_equal(other.path, other.settings, self.settings)
        new = [prompt for prompt in self.missing if other.has(prompt)]
        for prompt in new:
            with whole_folder(self._folder(prompt)) as unfinished:
                shutil.copytree(other._folder(prompt), unfinished, dirs_exist_ok=True)
        return len(new)

    def _folder(self, prompt: int) -> Path:
        return self.path / f"{prompt:05d}"


def check_equal(path: Path, found: EvaluationSettings, wanted: EvaluationSettings) -> None:
    """Raises InvalidRequest that names the first setting that differs."""
    for name in EvaluationSettings.model_fields:
        there, here = getattr(found, name), getattr(wanted, name)
        if there != here:
            raise InvalidRequest(f"{path} was begun with {name} = {there}, now it is {here}: choose another --out")


def check_finished(folder: EvaluationFolder) -> None:
    """Raises CheckpointError where prompts are missing."""
    if missing := folder.missing:
        raise CheckpointError(
            f"{folder.path} lacks {len(missing)} of {folder.settings.prompts} prompts: run the evaluation on, or merge "
            "its other parts"
        )
