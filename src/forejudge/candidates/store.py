"""Rows of drawn candidates on disk, block by block, so that a killed run loses only the block it was at.

A block is `rows/00000.parquet` and, where states are recorded, `states/00000.safetensors` beside it: tensors named by
their reading, (rows of the block, T, D) in half precision. The states are written first and the rows last, whole or
not at all, so that a block counts exactly when its rows are there.
"""

import hashlib
import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq
from PIL.Image import Image
from pydantic import BaseModel, ConfigDict, PositiveInt
from safetensors.torch import save
from torch import Tensor

from forejudge.checkpoint import checkpoint_errors
from forejudge.cli.result_folder import record_text
from forejudge.config_files import read_config
from forejudge.errors import CheckpointError, InvalidRequest, OutputError
from forejudge.files import atomic_folder, prepare_folder, write_bytes, write_image, write_shared_text, write_text
from forejudge.prompts.prompt_file import PromptLine

if TYPE_CHECKING:
    from forejudge import Result


# FOLDED: GenEval's folder layout, one numbered folder for each prompt:
#
#     00000/metadata.jsonl        the prompt's line
#     00000/samples/0000.png      the winner of the first image's candidates
#     00000/results/0000.json     how it was found
#
# An image is complete when both of its files are there. The picture is written last, so it decides.


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
        write_text(self.record, record_text(result))
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


# FOLDED: What an evaluation has drawn, on disk in GenEval's layout: a folder a prompt, there whole or not at all.
#
# settings.json                what decides what is drawn and said; a folder goes on only with the same
# 00000/metadata.jsonl         the prompt's line
# 00000/samples/0000.png       the candidates of the first seed, image by image
# 00000/images.jsonl           a line for every candidate: what does each evaluator say of it, and each verifier


EVALUATION_SETTINGS_FILE, IMAGES_FILE, METADATA_FILE = "settings.json", "images.jsonl", "metadata.jsonl"


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
        return read_config(self.path / EVALUATION_SETTINGS_FILE, EvaluationSettings)

    def begin(self, settings: EvaluationSettings) -> None:
        """Raises InvalidRequest, naming what differs, where it was begun with other settings."""
        if (self.path / EVALUATION_SETTINGS_FILE).exists():
            check_equal(self.path, self.settings, settings)
        write_shared_text(self.path / EVALUATION_SETTINGS_FILE, settings.model_dump_json(indent=2) + "\n")

    def has(self, prompt: int) -> bool:
        """Whether all of a prompt is there."""
        return self._folder(prompt).is_dir()

    def write(self, prompt: int, metadata: str, rows: Sequence[dict[str, Any]], samples: Sequence[Image]) -> None:
        """Put a prompt there in one go. Raises OutputError where that fails."""
        with atomic_folder(self._folder(prompt)) as unfinished:
            write_text(unfinished / METADATA_FILE, metadata + "\n")
            write_text(unfinished / IMAGES_FILE, "".join(json.dumps(row) + "\n" for row in rows))
            for number, image in enumerate(samples):
                write_image(unfinished / "samples" / f"{number:04d}.png", image)

    def rows(self, prompt: int) -> list[dict[str, Any]]:
        """A prompt's candidates in the order in which they were written. Raises CheckpointError."""
        path = self._folder(prompt) / IMAGES_FILE
        with checkpoint_errors(path):
            return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]

    def metadata(self, prompt: int) -> str:
        """A prompt's line. Raises CheckpointError."""
        path = self._folder(prompt) / METADATA_FILE
        with checkpoint_errors(path):
            return path.read_text(encoding="utf-8").strip()

    def sample(self, prompt: int, name: str) -> Path:
        """A picture that was kept of a prompt, by the name its row says."""
        return self._folder(prompt) / "samples" / name

    @property
    def missing(self) -> list[int]:
        """The prompts that are not there yet."""
        return [prompt for prompt in range(self.settings.prompts) if not self.has(prompt)]

    def merge_evaluation(self, other: "EvaluationFolder") -> int:
        """Copy the prompts of another part of the same evaluation; how many were new here."""
        check_equal(other.path, other.settings, self.settings)
        new = [prompt for prompt in self.missing if other.has(prompt)]
        for prompt in new:
            with atomic_folder(self._folder(prompt)) as unfinished:
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


SETTINGS_FILE = "settings.json"
_ROWS_OF_A_BLOCK = 128  # about


class CollectionConfig(BaseModel):
    """What decides the rows of a folder. Device and batch size may change from one sitting to the next.

    `revision` is the generator's fingerprint, `prompts` the SHA-256 of the prompts' metadata lines, `recorded` has the
    names of readings and `rows` counts all candidates.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    generator: str
    revision: str
    dtype: str = "float32"
    observer_name: str
    prompts: str
    candidates: PositiveInt
    seed: int
    recorded: tuple[str, ...] = ()
    rows: PositiveInt

    @property
    def prompts_of_a_block(self) -> int:
        """Prompts whose candidates make one block."""
        return max(_ROWS_OF_A_BLOCK // self.candidates, 1)

    @property
    def rows_of_a_block(self) -> int:
        """Rows of every block but the last one, which may have less."""
        return self.prompts_of_a_block * self.candidates

    @property
    def blocks(self) -> int:
        """How many blocks all rows make."""
        return -(-self.rows // self.rows_of_a_block)

    def rows_in(self, block: int) -> int:
        """Rows of one block."""
        return min(self.rows_of_a_block, self.rows - block * self.rows_of_a_block)


class CandidateStore:
    """One folder of rows. Several processes may fill it, each with blocks of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def refuse_others(self, settings: CollectionConfig) -> None:
        """Raises InvalidRequest where the folder was begun with other settings, naming both values."""
        if not (self.folder / SETTINGS_FILE).exists():
            return
        for name, made_with in self.settings:
            if made_with != getattr(settings, name):
                raise InvalidRequest(
                    f"{self.folder} was made with {name} = {made_with}, this run has {name} = "
                    f"{getattr(settings, name)}: choose another --out, or the same settings to go on with it"
                )

    def begin(self, settings: CollectionConfig) -> None:
        """Make the folder, or go on with it. Raises as `refuse_others`, and OutputError."""
        for name in ("rows", "states") if settings.recorded else ("rows",):
            prepare_folder(self.folder / name)
        path = self.folder / SETTINGS_FILE
        if not path.exists():
            write_shared_text(path, settings.model_dump_json(indent=2) + "\n")
        self.refuse_others(settings)

    @cached_property
    def settings(self) -> CollectionConfig:
        """What the folder was begun with. Raises CheckpointError where it was not."""
        return read_config(self.folder / SETTINGS_FILE, CollectionConfig)

    @property
    def digest(self) -> str:
        """What tells these rows from any others, wherever their generator lay: 16 hexadecimal digits."""
        return hashlib.sha256(self.settings.model_dump_json(exclude={"generator"}).encode()).hexdigest()[:16]

    def rows_path(self, block: int) -> Path:
        """The file of a block's rows."""
        return self.folder / "rows" / f"{block:05}.parquet"

    def states_path(self, block: int) -> Path:
        """The file of a block's states."""
        return self.folder / "states" / f"{block:05}.safetensors"

    def has(self, block: int) -> bool:
        """Whether a block is there, whole."""
        return self.rows_path(block).is_file()

    def write(self, block: int, rows: Sequence[Mapping[str, Any]], states: Mapping[str, Tensor]) -> None:
        """Store a block; `states` are in the order of `rows`. Raises OutputError."""
        if states:
            write_bytes(self.states_path(block), save(dict(states)))
        table = BytesIO()
        pq.write_table(pa.Table.from_pylist(rows), table)
        write_bytes(self.rows_path(block), table.getvalue())

    @property
    def missing(self) -> list[int]:
        """Blocks that are not there yet."""
        return [block for block in range(self.settings.blocks) if not self.has(block)]

    @property
    def complete(self) -> bool:
        """Whether every block is there."""
        return not self.missing

    def check_complete(self) -> None:
        """Raises CheckpointError while blocks are missing."""
        if missing := len(self.missing):
            raise CheckpointError(
                f"{self.folder} is not complete, {missing} of its {self.settings.blocks} blocks are missing: "
                "the same command goes on with it"
            )

    def table(self) -> pa.Table:
        """All rows, in the order of prompts and candidates.

        Raises CheckpointError while blocks are missing, or for one that cannot be read.
        """
        self.check_complete()
        blocks = [self._rows(block) for block in range(self.settings.blocks)]
        # Where a column is empty in one block, its type is that of the others.
        return pa.concat_tables(blocks, promote_options="default")

    def block_of(self, row: int) -> tuple[int, int]:
        """The block a row of `table` lies in, and its place there."""
        return divmod(row, self.settings.rows_of_a_block)

    def _rows(self, block: int) -> pa.Table:
        with checkpoint_errors(self.rows_path(block)):
            return pq.ParquetFile(self.rows_path(block)).read()
