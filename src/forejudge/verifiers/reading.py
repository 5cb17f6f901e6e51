"""What a verifier reads of a candidate: the stage it waits for, and the tokens it makes of what it sees there."""

from abc import ABC, abstractmethod
from copy import copy
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Self

import torch
from pydantic import Field
from torch import Tensor

from forejudge.errors import InvalidRequest
from forejudge.generators.base import Architecture
from forejudge.types import IMAGE, Candidates, Stage

ReadingName = Annotated[str, Field(pattern=r"^(hidden:[1-9]\d*|latent|clip)$")]
"""How a reading is spelt: hidden:K (after K blocks), latent or clip."""
VISION_TOWER = "vision_tower"  # the tower's place in the folder of a verifier that reads clip


class Reading(ABC):
    """The input of a verifier. `name` is its spelling in recipes and checkpoints, such as "hidden:8"."""

    name: str
    stage: Stage

    def in_step(self, step: int) -> Self:
        """The same reading in another denoising step, counted from 0; finished pictures have none."""
        moved = copy(self)
        moved.stage = self.stage if self.stage == IMAGE else replace(self.stage, step=step)
        return moved

    def compiled(self) -> Self:
        """The same reading with what weights it has compiled."""
        return self

    @abstractmethod
    def width(self, architecture: Architecture) -> int:
        """Channels of a token. Raises MismatchError where the generator has no such stage."""

    @abstractmethod
    def tokens(self, candidates: Candidates) -> Tensor:
        """Candidates that stand at `stage` as tokens (N, T, D)."""

    def to(self, device: torch.device, dtype: torch.dtype) -> None:  # noqa: B027 - most have none
        """Move weights of its own, if it has any."""

    def save_pretrained(self, folder: Path) -> None:  # noqa: B027
        """Write weights of its own, if it has any, into a verifier's folder."""


def reading_named(name: str, vision_tower: str | Path | None = None, dtype: torch.dtype = torch.float32) -> Reading:
    """The reading of a spelling: "hidden:K", "latent", or "clip" with its tower (a folder or hub id) in `dtype`.

    Raises InvalidRequest for any other spelling, CheckpointError for a tower that cannot be loaded.
    """
    from forejudge.verifiers.hidden_state import HiddenStateReading
    from forejudge.verifiers.latent import LatentReading

    kind, _, blocks = name.partition(":")
    if kind == "hidden" and blocks.isdecimal() and int(blocks):
        return HiddenStateReading(int(blocks))
    if name == "latent":
        return LatentReading()
    if name == "clip":
        from forejudge.verifiers.clip import ClipReading

        if vision_tower is None:
            raise InvalidRequest("reading clip needs a vision tower: name a folder or a hub id as vision_tower")
        return ClipReading.from_pretrained(vision_tower, dtype)
    raise InvalidRequest(f"reads = {name!r}: expected hidden:K (after K blocks), latent or clip")
