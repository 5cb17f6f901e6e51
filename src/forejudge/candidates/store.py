"""Stores of generated candidates: folders that a long run fills block by block, so that a kill loses one block at most.

    settings.json               the configuration that decides the rows
    prompts.jsonl               the metadata lines of all prompts
    rows/00000.parquet          one block of rows, a row per candidate
    states/00000.safetensors    recorded states of these rows, if any: a tensor per verifier input, named by it,
                                (rows of the block, T, D) in half precision
    checksums/00000.json        the CRC-32 of both, compared when they are read
    00000/samples/0000.png      kept images, if any, in GenEval's layout (see `geneval_folder`)

States, images and checksums are written first and rows last, whole or not at all: a block exists exactly when its rows
do.
"""

import hashlib
import zlib
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from functools import cached_property
from io import BytesIO
from pathlib import Path
from types import MappingProxyType
from typing import Any, ClassVar, Generic, Self, TypeVar

import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import BaseModel, ConfigDict, model_validator
from safetensors import safe_open
from safetensors.torch import save
from torch import Tensor

from forejudge.candidates.geneval_folder import GenEvalFolder
from forejudge.checkpoint import first_line
from forejudge.config_files import read_config, record_config, refuse_other_config
from forejudge.errors import CheckpointError, ForejudgeError, InvalidRequest
from forejudge.files import exists, is_file, output_folder, write_bytes, write_text
from forejudge.noise import Split
from forejudge.options import LargeCount, Seed
from forejudge.progress import Shard
from forejudge.prompts.prompt_file import PromptLine
from forejudge.types import Grid

SETTINGS_FILE = "settings.json"
PROMPTS_FILE = "prompts.jsonl"
_ROWS_PER_BLOCK = 128  # about
_BYTES_AT_ONCE = 2**24

ConfigT = TypeVar("ConfigT", bound=BaseModel)


def _checksum(parts: Iterable[bytes | memoryview]) -> str:
    """Return the CRC-32 of bytes given in parts."""
    checksum = 0
    for part in parts:
        checksum = zlib.crc32(part, checksum)
    return f"{checksum:08x}"


class BlockStore(ABC, Generic[ConfigT]):
    """A folder begun with one configuration and filled block by block, by one process or several."""

    config_class: type[ConfigT]
    block_name = "blocks"  # in messages
    may_grow = False  # by prompts added at the end of the file

    def __init__(self, path: Path) -> None:
        self.path = path

    @cached_property
    def settings(self) -> ConfigT:
        """Configuration the folder was begun with. Raises CheckpointError where there is none."""
        return read_config(self.path / SETTINGS_FILE, self.config_class)

    def refuse_other(self, settings: ConfigT) -> None:
        """Raise InvalidRequest, naming both values, where the folder was begun with another configuration."""
        refuse_other_config(self.path / SETTINGS_FILE, settings)

    def begin(self, settings: ConfigT) -> None:
        """Record the configuration, or continue with it. Raises as `refuse_other`, and OutputError."""
        record_config(self.path / SETTINGS_FILE, settings)

    def check_prompts(self, lines: Sequence[PromptLine]) -> None:
        """Raise InvalidRequest, saying what changed, where the folder was begun with other prompts."""
        self._refuse_other_prompts(lines, self.recorded_prompts)

    def _refuse_other_prompts(self, lines: Sequence[PromptLine], recorded: list[str]) -> None:
        given = [line.metadata for line in lines]
        same = recorded == (given[: len(recorded)] if self.may_grow else given)
        if not recorded or same:
            return
        gone, new = Counter(recorded) - Counter(given), Counter(given) - Counter(recorded)
        changes = [f"{gone.total()} are gone, such as {next(iter(gone))[:80]}"] if gone else []
        if new:
            added = next(line for line in reversed(lines) if line.metadata in new)
            changes.append(f"{new.total()} are new, such as {added.where}: {added.metadata[:80]}")
        raise InvalidRequest(
            f"{self.path} was begun with other prompts: {'; '.join(changes) or 'the order is another'}; choose another "
            "--out, or the same prompts to continue"
        )

    def num_added(self, lines: Sequence[PromptLine]) -> int:
        """Return how many prompts follow those the folder was begun with."""
        recorded = len(self.recorded_prompts)
        return len(lines) - recorded if recorded else 0

    def record_prompts(self, lines: Sequence[PromptLine]) -> None:
        """Record the prompts, or continue with them. Raises InvalidRequest for other ones, and OutputError."""
        recorded = self.recorded_prompts
        self._refuse_other_prompts(lines, recorded)
        if len(recorded) < len(lines):
            write_text(self.path / PROMPTS_FILE, "".join(f"{line.metadata}\n" for line in lines))

    @property
    def recorded_prompts(self) -> list[str]:
        """Metadata lines the folder was begun with; none where it was not."""
        path = self.path / PROMPTS_FILE
        try:
            return path.read_text(encoding="utf-8").split("\n")[:-1] if exists(path) else []
        except (OSError, UnicodeDecodeError) as error:
            raise CheckpointError(
                f"{path} cannot be read ({first_line(error)}): delete it, the run continues without it"
            ) from None

    def lock(self, shard: Shard) -> AbstractContextManager[None]:
        """Hold a shard of the folder. Raises InvalidRequest where another process holds it."""
        return output_folder(self.path, shard.number, shard.count)

    @property
    @abstractmethod
    def blocks(self) -> int:
        """Number of blocks of a complete store."""

    @abstractmethod
    def has(self, block: int) -> bool:
        """Return whether a block is there, whole."""

    @property
    def missing(self) -> list[int]:
        """Blocks that are not there yet."""
        return [block for block in range(self.blocks) if not self.has(block)]

    @property
    def complete(self) -> bool:
        """True once every block is there."""
        return not self.missing

    def check_complete(self) -> None:
        """Raise CheckpointError while blocks are missing."""
        if missing := len(self.missing):
            raise CheckpointError(
                f"{self.path} is incomplete, {missing} of its {self.blocks} {self.block_name} are missing: run the same"
                " command again to continue, or bring in the other shards"
            )


class Checksums(BaseModel):
    """CRC-32 of the files of one block, as hexadecimal digits: it finds changed bytes, not forgery."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    rows: str
    states: str | None = None


class RowStore(BlockStore[ConfigT]):
    """Blocks of rows in Parquet, with recorded states and kept images beside them."""

    @abstractmethod
    def rows_in(self, block: int) -> int:
        """Return the number of rows of one block."""

    def rows_path(self, block: int) -> Path:
        """Return the file of a block's rows."""
        return self.path / "rows" / f"{block:05}.parquet"

    def states_path(self, block: int) -> Path:
        """Return the file of a block's states."""
        return self.path / "states" / f"{block:05}.safetensors"

    def checksums_path(self, block: int) -> Path:
        """Return the file of a block's checksums."""
        return self.path / "checksums" / f"{block:05}.json"

    def images(self, prompt: int) -> GenEvalFolder:
        """Return the folder of a prompt's kept images."""
        return GenEvalFolder.of_prompt(self.path, prompt)

    def has(self, block: int) -> bool:
        """See `BlockStore.has`."""
        return is_file(self.rows_path(block))

    def write(
        self,
        block: int,
        rows: Sequence[Mapping[str, Any]],
        states: Mapping[str, Tensor],
        grids: Mapping[str, Grid | None] = MappingProxyType({}),
    ) -> None:
        """Write a block's states and then its rows, both in the same order. Raises OutputError.

        `grids` of states whose tokens are no square go into the file's metadata.
        """
        metadata = {name: f"{grid[0]}x{grid[1]}" for name, grid in grids.items() if grid and grid[0] != grid[1]}
        states_content = save(dict(states), metadata or None) if states else None
        content = BytesIO()
        table = pa.Table.from_pylist(rows)
        empty = [field.name for field in table.schema if pa.types.is_struct(field.type) and not field.type.num_fields]
        # Parquet has no structs without fields.
        pq.write_table(table.drop_columns(empty), content, write_page_checksum=True)
        if states_content is not None:
            write_bytes(self.states_path(block), states_content)
        checksums = Checksums(
            rows=_checksum([content.getbuffer()]), states=states_content and _checksum([states_content])
        )
        write_bytes(self.checksums_path(block), checksums.model_dump_json().encode())
        write_bytes(self.rows_path(block), content.getvalue())

    def block_table(self, block: int) -> pa.Table:
        """Return the rows of one block. Raises CheckpointError where they cannot be read or have changed."""
        path = self.rows_path(block)
        with self.damage_named(path, block):
            content = path.read_bytes()
            self._compare_checksum("rows", _checksum([content]), block)
            table = pq.ParquetFile(BytesIO(content), page_checksum_verification=True).read()
            if len(table) != self.rows_in(block):
                raise ValueError(f"it has {len(table)} rows, {SETTINGS_FILE} says {self.rows_in(block)}")
        return table

    def recorded_grids(self, block: int) -> dict[str, Grid]:
        """Return the grids of a block's states whose tokens are no square, by verifier input."""
        path = self.states_path(block)
        with self.damage_named(path, block), safe_open(path, "pt") as states:
            sides = {name: grid.split("x") for name, grid in (states.metadata() or {}).items()}
            return {name: (int(rows), int(columns)) for name, (rows, columns) in sides.items()}

    def check_states(self, block: int) -> None:
        """Raise CheckpointError where the states of a block are missing or have changed. Reads all of them."""
        path = self.states_path(block)
        with self.damage_named(path, block), path.open("rb") as file:
            self._compare_checksum("states", _checksum(iter(lambda: file.read(_BYTES_AT_ONCE), b"")), block)

    def _compare_checksum(self, part: str, found: str, block: int) -> None:
        expected = getattr(read_config(self.checksums_path(block), Checksums), part)
        if found != expected:
            raise ValueError(f"its checksum is {found}, not {expected}")

    @contextmanager
    def damage_named(self, path: Path, block: int) -> Iterator[None]:
        try:
            yield
        except Exception as error:  # pyarrow raises many types
            problem = str(error) if isinstance(error, ForejudgeError) else f"{path} is damaged ({first_line(error)})"
            raise CheckpointError(
                f"{problem}: delete {self.rows_path(block)} and run the command that wrote it again, it makes this "
                "block again"
            ) from None

    def table(self) -> pa.Table:
        """Return all rows, in the order of prompts and candidates. Raises CheckpointError while blocks are missing."""
        self.check_complete()
        blocks = [self.block_table(block) for block in range(self.blocks)]
        # A column that is empty in one block takes its type from the others.
        return pa.concat_tables(blocks, promote_options="default")


class CollectionConfig(BaseModel):
    """Configuration that decides the rows of a `CandidateStore`. Device and batch size may change between runs.

    `revision` is the generator's fingerprint, `prompts` the SHA-256 of the prompts' metadata lines, `recorded` names
    the recorded verifier inputs, and `rows` counts all candidates.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    model_names: ClassVar = {"generator"}

    generator: str
    revision: str
    dtype: str = "float32"
    observer_name: str
    prompts: str
    candidates: LargeCount
    seed: Seed
    split: Split = "training"
    recorded: tuple[str, ...] = ()
    rows: LargeCount

    @model_validator(mode="after")
    def _rows_are_whole_prompts(self) -> Self:
        if self.rows % self.candidates:
            raise ValueError(f"rows = {self.rows} are no multiple of candidates = {self.candidates}")
        return self

    @property
    def prompts_per_block(self) -> int:
        """Prompts whose candidates make one block."""
        return max(_ROWS_PER_BLOCK // self.candidates, 1)

    @property
    def rows_per_block(self) -> int:
        """Rows of every block except the last, which may have fewer."""
        return self.prompts_per_block * self.candidates

    @property
    def blocks(self) -> int:
        """Number of blocks of all rows."""
        return -(-self.rows // self.rows_per_block)

    def rows_in(self, block: int) -> int:
        """Return the number of rows of one block."""
        return min(self.rows_per_block, self.rows - block * self.rows_per_block)


class CandidateStore(RowStore[CollectionConfig]):
    """Labeled or captioned candidates that verifiers are trained on."""

    config_class = CollectionConfig
    block_name = "row blocks"  # beside the blocks of transformers

    @property
    def blocks(self) -> int:
        """See `BlockStore.blocks`."""
        return self.settings.blocks

    def has(self, block: int) -> bool:
        """See `BlockStore.has`: its rows are there, and its states if they are recorded."""
        return super().has(block) and (not self.settings.recorded or is_file(self.states_path(block)))

    def rows_in(self, block: int) -> int:
        """See `RowStore.rows_in`."""
        return self.settings.rows_in(block)

    @property
    def digest(self) -> str:
        """16 hexadecimal digits that identify the rows, wherever their generator was stored."""
        return hashlib.sha256(self.settings.model_dump_json(exclude={"generator"}).encode()).hexdigest()[:16]

    def block_of(self, row: int) -> tuple[int, int]:
        """Return the block that holds a row of `table`, and the row's index in it."""
        return divmod(row, self.settings.rows_per_block)
