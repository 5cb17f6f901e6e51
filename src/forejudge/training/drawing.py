"""Candidates of many prompts drawn to the end, shown to an observer and kept, block by block."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol

import torch
from PIL.Image import Image
from torch import Tensor

from forejudge.device import dtype_name
from forejudge.evaluation.groups import Group, groups_of
from forejudge.evaluation.prompts_file import PromptLine, check_lines, prompts_digest
from forejudge.files import held_alone
from forejudge.generators.base import Generator
from forejudge.progress import Report, Stopwatch
from forejudge.shard import Shard
from forejudge.training.disk_space import check_room
from forejudge.training.recipe import named_model
from forejudge.training.row_folder import DrawingSettings, RowFolder
from forejudge.training.states import half
from forejudge.types import IMAGE
from forejudge.verifiers.reading import Reading

RECORDED = "the states to be recorded"


class Observer(Protocol):
    """Whoever says something of every picture: an evaluator, a captioner. Called once for each block."""

    @property
    def name(self) -> str:
        """What stands in the rows as `judged_by`."""

    def __call__(self, lines: Sequence[PromptLine], pictures: Sequence[Image]) -> list[dict[str, Any]]:
        """Further columns for the row of each picture, which goes with the line at its place."""


@dataclass(frozen=True)
class CandidateDrawing:
    """What is drawn, who observes it, and which readings of it are recorded; `batch_size` candidates at once."""

    generator: Generator
    lines: Sequence[PromptLine]
    candidates: int
    seed: int
    observer: Observer
    readings: Sequence[Reading] = ()
    batch_size: int = 8

    def __post_init__(self) -> None:
        for reading in self.readings:
            reading.to(self.generator.device, self.generator.dtype)

    @cached_property
    def settings(self) -> DrawingSettings:
        """What decides the rows."""
        return DrawingSettings(
            generator=named_model(self.generator.name),
            revision=self.generator.fingerprint,
            dtype=dtype_name(self.generator.dtype),
            judged_by=self.observer.name,
            prompts=prompts_digest(self.lines),
            candidates=self.candidates,
            seed=self.seed,
            recorded=tuple(reading.name for reading in self.readings),
            rows=len(self.lines) * self.candidates,
        )

    @cached_property
    def recorded_bytes(self) -> int:
        """What the states of all rows take on disk, measured on one candidate; 0 where none are recorded.

        Raises MismatchError for a reading of blocks that the generator does not have.
        """
        if not self.readings:
            return 0
        for reading in self.readings:
            reading.width(self.generator.architecture)
        self._check_prompts(self.lines[:1])
        first = groups_of(self.lines[:1], 1, self.seed)[0]
        (one,) = first.draw(self.generator, [reading.stage for reading in self.readings], batch_size=1)
        return self.settings.rows * sum(half(reading.tokens(one)).nbytes for reading in self.readings)

    def bytes_of(self, rows: int) -> int:
        """What the states of so many rows take on disk. Raises as `recorded_bytes`."""
        return self.recorded_bytes * rows // self.settings.rows

    def run(self, folder: RowFolder, shard: Shard, report: Report) -> None:
        """Draw the shard's blocks that are not in the folder yet.

        Before the folder is begun, raises InvalidRequest where it was made with other settings and for a prompt that
        the generator refuses, naming its line; MismatchError for a reading that it does not have, OutputError where
        the disk is too small for the states. Later, OutputError where nothing can be written, and whatever the
        observer raises.
        """
        folder.refuse_others(self.settings)
        mine = list(shard.of(self.settings.blocks))
        left = self._left(folder, shard)
        self._check_prompts([group.line for block in left for group in self._groups_in(block)])
        total, wanted = self._rows_in(mine), self._rows_in(left)
        check_room(folder.folder, self.bytes_of(wanted), RECORDED)
        folder.begin(self.settings)
        stopwatch, drawn = Stopwatch(folder.folder.name, total - wanted, total), 0
        with held_alone(folder.folder / "rows" / f".{shard.number}-of-{shard.count}.lock"):
            for block in left:
                folder.write(block, *self._draw(block))
                drawn += self._rows_in([block])
                report(stopwatch.at(total - wanted + drawn, f"{drawn / stopwatch.seconds:.1f} images/s"))

    def rows_left(self, folder: RowFolder, shard: Shard) -> int:
        """Rows of the shard's blocks that are not in the folder yet. Raises as `run` for a folder of other settings."""
        folder.refuse_others(self.settings)
        return self._rows_in(self._left(folder, shard))

    def _left(self, folder: RowFolder, shard: Shard) -> list[int]:
        return [block for block in shard.of(self.settings.blocks) if not folder.has(block)]

    def _check_prompts(self, lines: Iterable[PromptLine]) -> None:
        """Find a prompt that the generator refuses now, not hours later."""
        check_lines(lines, lambda prompt: self.generator.check(prompt, self.generator.defaults))

    def _rows_in(self, blocks: Sequence[int]) -> int:
        return sum(self.settings.rows_in(block) for block in blocks)

    def _draw(self, block: int) -> tuple[list[dict[str, Any]], dict[str, Tensor]]:
        """The rows of a block, and its states by the name of their reading."""
        stages = [*(reading.stage for reading in self.readings), IMAGE]
        groups = self._groups_in(block)
        pictures: list[Image] = []
        states: dict[str, list[Tensor]] = {reading.name: [] for reading in self.readings}
        for group in groups:
            for candidates in group.draw(self.generator, stages, self.batch_size):
                pictures += candidates.pictures
                for reading in self.readings:
                    states[reading.name].append(half(reading.tokens(candidates)))
        return self._rows(groups, pictures), {name: torch.cat(parts) for name, parts in states.items()}

    def _rows(self, groups: Sequence[Group], pictures: Sequence[Image]) -> list[dict[str, Any]]:
        settings = self.settings
        made = {"generator": settings.generator, "revision": settings.revision, "judged_by": settings.judged_by}
        observed = self.observer([group.line for group in groups for _ in group.seeds], pictures)
        rows = [row for group in groups for row in group.rows()]
        return [row | columns | made for row, columns in zip(rows, observed, strict=True)]

    def _groups_in(self, block: int) -> list[Group]:
        first = block * self.settings.prompts_of_a_block
        return self._groups[first : first + self.settings.prompts_of_a_block]

    @cached_property
    def _groups(self) -> list[Group]:
        return groups_of(self.lines, self.candidates, self.seed)
