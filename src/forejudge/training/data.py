"""A folder of drawn candidates as training sees it: columns, groups, and what a verifier reads of each row."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from forejudge.device import dtype_name
from forejudge.errors import CheckpointError, InvalidRequest, MismatchError
from forejudge.evaluation.geneval_prompts import normalised_text
from forejudge.generators.base import Generator
from forejudge.training.row_folder import RowFolder
from forejudge.training.states import RecomputedStates, RecordedStates, States
from forejudge.training.statistics import channel_statistics
from forejudge.verifiers.reading import Reading


@dataclass(frozen=True)
class DrawnRows:
    """All rows of a finished folder. Raises CheckpointError for one that is unfinished or has no such column."""

    folder: RowFolder

    @classmethod
    def of(cls, folder: Path, generator: Generator) -> "DrawnRows":
        """Raises MismatchError where another generator drew them, or the same in another dtype."""
        rows = cls(RowFolder(folder))
        drawn_by, dtype = rows.folder.settings.revision, rows.folder.settings.dtype
        if drawn_by != generator.fingerprint:
            raise MismatchError(
                f"{folder} was drawn by weights {drawn_by}, {generator.name} has {generator.fingerprint}: draw it anew"
            )
        if dtype != (running := dtype_name(generator.dtype)):
            raise MismatchError(f"{folder} was drawn in {dtype}, the generator runs in {running}: make them the same")
        return rows

    def __len__(self) -> int:
        return len(self.prompts)

    def column(self, name: str) -> list[Any]:
        """One value a row."""
        if name not in self._table.column_names:
            raise CheckpointError(f"{self.folder.folder} has no column {name}: was it made by another command?")
        values: list[Any] = self._table[name].to_pylist()
        return values

    @cached_property
    def prompts(self) -> list[str]:
        """The prompt of each row."""
        return self.column("prompt")

    @cached_property
    def correct(self) -> NDArray[np.bool_]:
        """Whether each row's picture is right."""
        return np.array(self.column("correct"), dtype=np.bool_)

    @property
    def groups(self) -> list[tuple[str, int]]:
        """Prompt and image of each row: rows of one group are candidates for one picture."""
        return list(zip(self.prompts, self.column("image_index"), strict=True))

    def states(self, generator: Generator, reading: Reading) -> States:
        """Recorded ones where they are there, otherwise computed anew."""
        if reading.name in self.folder.settings.recorded:
            return RecordedStates(self.folder, reading.name)
        return RecomputedStates(generator, reading, self.prompts, self.column("seed"))

    @cached_property
    def _table(self) -> Any:
        return self.folder.table()


@dataclass(frozen=True)
class TrainingData:
    """What a stage learns from, and the held-out rows by which its best checkpoint is chosen."""

    training: DrawnRows
    held_out: DrawnRows

    @classmethod
    def of(cls, training: Path, validation: Path, generator: Generator) -> "TrainingData":
        """Raises as `DrawnRows.of`, and InvalidRequest where a run would be judged by what it is trained on."""
        data = cls(DrawnRows.of(training, generator), DrawnRows.of(validation, generator))
        check_held_out(data.training, data.held_out)
        return data

    @property
    def digests(self) -> dict[str, str | None]:
        """What tells both from any other."""
        return {"training": self.training.folder.digest, "validation": self.held_out.folder.digest}


def state_statistics(states: States, count: int, seed: int, most: int) -> tuple[Tensor, Tensor]:
    """Mean and variance of each channel, over `most` of `count` rows at random: (D,) each."""
    order: Sequence[int] = torch.randperm(count, generator=torch.Generator().manual_seed(seed)).tolist()
    return channel_statistics(states.batches(order[:most]))


def check_held_out(training: DrawnRows, validation: DrawnRows) -> None:
    """Raises InvalidRequest where a run would be judged by what it is trained on."""
    if training.folder.digest == validation.folder.digest:
        raise InvalidRequest(f"{validation.folder.folder} holds the training candidates: draw those of other prompts")


def share_of_training_prompts(training: DrawnRows, validation: DrawnRows) -> float:
    """How many validation candidates, in [0, 1], were drawn from a text that training candidates were drawn from."""
    known = set(map(normalised_text, set(training.prompts)))
    return float(np.mean([normalised_text(prompt) in known for prompt in validation.prompts]))
