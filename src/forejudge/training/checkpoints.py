"""Checkpoints of a run: sealed with the SHA-256 of their files once whole, and checked before a run continues.

A checkpoint without a seal was interrupted while it was written; one that differs from its seal is damaged. The two
newest are kept, each with the best one up to it, so that a run can continue from the one before a damaged one.
"""

import logging
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from pydantic import AliasPath, BaseModel, ConfigDict, Field, NonNegativeInt, PositiveInt
from transformers import TrainerCallback

from forejudge.config_files import read_config
from forejudge.device import is_main_process
from forejudge.digests import FileChecksums, file_checksum
from forejudge.errors import CheckpointError
from forejudge.files import exists, is_file, write_json

_LOGGER = logging.getLogger("forejudge")
_SEAL_FILE, _STATE_FILE = "digests.json", "trainer_state.json"
_PREFIX = "checkpoint-"
_MAX_RECENT = 2
MAX_CHECKPOINTS = _MAX_RECENT + 2  # on disk at once: a best one beside them, and the next until it is sealed


class _State(BaseModel):
    """Fields of trainer_state.json that decide how a run continues."""

    model_config = ConfigDict(strict=True)

    global_step: NonNegativeInt
    best_global_step: PositiveInt | None
    finished: bool = Field(
        validation_alias=AliasPath("stateful_callbacks", "TrainerControl", "args", "should_training_stop")
    )


@dataclass(frozen=True)
class Checkpoint:
    """Folder of one checkpoint, checkpoint-STEP."""

    path: Path

    @property
    def step(self) -> int:
        """Number of optimizer steps done."""
        return int(self.path.name.removeprefix(_PREFIX))

    @property
    def weights(self) -> Path:
        """File of the model's weights."""
        return self.path / "model.safetensors"

    @cached_property
    def _state(self) -> _State:
        return read_config(self.path / _STATE_FILE, _State)

    @property
    def best(self) -> "Checkpoint":
        """The best checkpoint up to this one."""
        step = self._state.best_global_step
        return self if step is None else Checkpoint(self.path.with_name(f"{_PREFIX}{step}"))

    @property
    def finished(self) -> bool:
        """True if training ended with this checkpoint: all steps done, or stopped early."""
        return self._state.finished

    @property
    def sealed(self) -> bool:
        """True if the checkpoint was written to its end."""
        return exists(self.path / _SEAL_FILE)

    def seal(self) -> None:
        """Record the digests of all files. Raises OutputError."""
        files = sorted(path for path in self.path.iterdir() if is_file(path))
        write_json(self.path / _SEAL_FILE, {path.name: file_checksum(path) for path in files})

    def check(self) -> None:
        """Raise CheckpointError naming a file of this checkpoint, or of the best one up to it, that has changed."""
        for checkpoint in {self.path, self.best.path}:
            seal = read_config(checkpoint / _SEAL_FILE, FileChecksums).root
            if _STATE_FILE not in seal:
                raise CheckpointError(f"{checkpoint / _SEAL_FILE} has no {_STATE_FILE}")
            for name, digest in seal.items():
                if file_checksum(checkpoint / name) != digest:
                    raise CheckpointError(f"{checkpoint / name} has changed since it was written")


def _checkpoints(folder: Path) -> list[Checkpoint]:
    """Return the checkpoints, newest first; other names are ignored."""
    paths = [path for path in folder.glob(f"{_PREFIX}*") if path.name.removeprefix(_PREFIX).isdecimal()]
    return sorted(map(Checkpoint, paths), key=lambda checkpoint: checkpoint.step, reverse=True)


def newest_checkpoint(folder: Path) -> Checkpoint | None:
    """Return the newest whole checkpoint, or None where none was written to its end.

    Warns of damaged ones that are passed over. Raises CheckpointError if there are no others.
    """
    damage = ""
    for checkpoint in _checkpoints(folder):
        if not checkpoint.sealed:
            continue
        try:
            checkpoint.check()
        except CheckpointError as error:
            damage = damage or str(error)
            continue
        if damage and is_main_process():
            _LOGGER.warning("%s; continuing from %s", damage, checkpoint.path)
        return checkpoint
    if damage:
        raise CheckpointError(f"{damage}, and no whole checkpoint is left: delete {folder} to train from the start")
    return None


class CheckpointKeeper(TrainerCallback):
    """Seals every checkpoint of a folder, and removes those that no continuation needs.

    `start` is the checkpoint that the run continues from.
    """

    def __init__(self, folder: Path, start: Checkpoint | None) -> None:
        self.folder, self.start = folder, start

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Remove checkpoints of steps that will be repeated, and damaged ones."""
        if state.is_world_process_zero:
            self._keep([] if self.start is None else [self.start])

    def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Seal the newest checkpoint once every process has written its part, then remove old ones."""
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            torch.distributed.barrier()
        if state.is_world_process_zero:
            Checkpoint(self.folder / f"{_PREFIX}{state.global_step}").seal()
            self._keep(_checkpoints(self.folder)[:_MAX_RECENT])

    def _keep(self, checkpoints: Sequence[Checkpoint]) -> None:
        kept = {path for checkpoint in checkpoints for path in (checkpoint.path, checkpoint.best.path)}
        for checkpoint in _checkpoints(self.folder):
            if checkpoint.path not in kept:
                shutil.rmtree(checkpoint.path, ignore_errors=True)
