"""Rows of drawn candidates on disk, block by block, so that a killed run loses only the block it was at.

A block is `rows/00000.parquet` and, where states are recorded, `states/00000.safetensors` beside it: tensors named by
their reading, (rows of the block, T, D) in half precision. The states are written first and the rows last, whole or
not at all, so that a block counts exactly when its rows are there.
"""

import hashlib
from collections.abc import Mapping, Sequence
from functools import cached_property
from io import BytesIO
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import BaseModel, ConfigDict, PositiveInt
from safetensors.torch import save
from torch import Tensor

from forejudge.checkpoint import read_config
from forejudge.errors import CheckpointError, InvalidRequest
from forejudge.files import prepare_folder, write_bytes, write_shared_text
from forejudge.library_calls import named_file

SETTINGS_FILE = "settings.json"
_ROWS_OF_A_BLOCK = 128  # about


class DrawingSettings(BaseModel):
    """What decides the rows of a folder. Device and batch size may change from one sitting to the next.

    `revision` is the generator's fingerprint, `prompts` the SHA-256 of the prompts' metadata lines, `recorded` has the
    names of readings and `rows` counts all candidates.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    generator: str
    revision: str
    dtype: str = "float32"
    judged_by: str
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


class RowFolder:
    """One folder of rows. Several processes may fill it, each with blocks of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def refuse_others(self, settings: DrawingSettings) -> None:
        """Raises InvalidRequest where the folder was begun with other settings, naming both values."""
        if not (self.folder / SETTINGS_FILE).exists():
            return
        for name, made_with in self.settings:
            if made_with != getattr(settings, name):
                raise InvalidRequest(
                    f"{self.folder} was made with {name} = {made_with}, this run has {name} = "
                    f"{getattr(settings, name)}: choose another --out, or the same settings to go on with it"
                )

    def begin(self, settings: DrawingSettings) -> None:
        """Make the folder, or go on with it. Raises as `refuse_others`, and OutputError."""
        for name in ("rows", "states") if settings.recorded else ("rows",):
            prepare_folder(self.folder / name)
        path = self.folder / SETTINGS_FILE
        if not path.exists():
            write_shared_text(path, settings.model_dump_json(indent=2) + "\n")
        self.refuse_others(settings)

    @cached_property
    def settings(self) -> DrawingSettings:
        """What the folder was begun with. Raises CheckpointError where it was not."""
        return read_config(self.folder / SETTINGS_FILE, DrawingSettings)

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
        with named_file(self.rows_path(block)):
            return pq.ParquetFile(self.rows_path(block)).read()
