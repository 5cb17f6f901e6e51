"""What a verifier reads of a candidate: the stage it waits for, and the tokens it makes of what it sees there."""

from abc import ABC, abstractmethod
from copy import copy
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, Self

import torch
from pydantic import Field
from torch import Tensor
from transformers import CLIPImageProcessorPil, CLIPVisionModel

from forejudge.checkpoint import checkpoint_errors, quiet_libraries
from forejudge.compiling import compile_layers
from forejudge.errors import InvalidRequest, MismatchError
from forejudge.generators.base import Architecture
from forejudge.hub import local_folder
from forejudge.library_models import load_library_model
from forejudge.types import IMAGE, Candidates, Stage, latent_stage, prefix_stage

VerifierInputName = Annotated[str, Field(pattern=r"^(hidden:[1-9]\d*|latent|clip)$")]
"""How a reading is spelt: hidden:K (after K blocks), latent or clip."""
VISION_TOWER = "vision_tower"  # the tower's place in the folder of a verifier that reads clip


class VerifierInput(ABC):
    """The input of a verifier. `name` is its spelling in recipes and checkpoints, such as "hidden:8"."""

    name: str
    stage: Stage

    def at_step(self, step: int) -> Self:
        """The same reading in another denoising step, counted from 0; finished pictures have none."""
        clone = copy(self)
        clone.stage = self.stage if self.stage == IMAGE else replace(self.stage, step=step)
        return clone

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


def build_verifier_input(
    name: str, vision_tower: str | Path | None = None, dtype: torch.dtype = torch.float32
) -> VerifierInput:
    """The reading of a spelling: "hidden:K", "latent", or "clip" with its tower (a folder or hub id) in `dtype`.

    Raises InvalidRequest for any other spelling, CheckpointError for a tower that cannot be loaded.
    """

    kind, _, blocks = name.partition(":")
    if kind == "hidden" and blocks.isdecimal() and int(blocks):
        return HiddenStateInput(int(blocks))
    if name == "latent":
        return LatentInput()
    if name == "clip":
        if vision_tower is None:
            raise InvalidRequest("reading clip needs a vision tower: name a folder or a hub id as vision_tower")
        return ImageFeaturesInput.from_pretrained(vision_tower, dtype)
    raise InvalidRequest(f"reads = {name!r}: expected hidden:K (after K blocks), latent or clip")


# FOLDED: Reading finished pictures through a CLIP vision tower: the paper's baseline "MLLM w/ CLIP".


class ImageFeaturesInput(VerifierInput):
    """Patch tokens of the tower's last layer but one, without the class token (LLaVA's choice of layer).

    The tower stays as it is: a verifier is trained behind it.
    """

    name, stage = "clip", IMAGE

    def __init__(self, tower: CLIPVisionModel, processor: CLIPImageProcessorPil) -> None:
        self.tower, self.processor = tower.eval().requires_grad_(False), processor

    @classmethod
    def from_pretrained(cls, folder: str | Path, dtype: torch.dtype = torch.float32) -> "ImageFeaturesInput":
        """Load a folder, or a hub id, that holds a `CLIPVisionModel` and its processor. Raises CheckpointError."""
        folder = local_folder(str(folder))
        tower: Any = load_library_model(CLIPVisionModel, folder, dtype, allow_unexpected_keys=True)
        return cls(tower, load_image_processor(folder))

    def to(self, device: torch.device, dtype: torch.dtype) -> None:
        """See `VerifierInput.to`."""
        self.tower.to(device, dtype)

    def compiled(self) -> "ImageFeaturesInput":
        """See `VerifierInput.compiled`."""
        return ImageFeaturesInput(compile_layers(self.tower), self.processor)

    def save_pretrained(self, folder: Path) -> None:
        """See `VerifierInput.save_pretrained`."""
        with quiet_libraries():
            self.tower.save_pretrained(folder / VISION_TOWER)
            self.processor.save_pretrained(folder / VISION_TOWER)

    def width(self, architecture: Architecture) -> int:
        """See `VerifierInput.width`."""
        width: int = self.tower.config.hidden_size
        return width

    @torch.no_grad()
    def tokens(self, candidates: Candidates) -> Tensor:
        """See `VerifierInput.tokens`."""
        pixels_N3HW = self.processor(list(candidates.images), return_tensors="pt").pixel_values
        outputs = self.tower(pixels_N3HW.to(self.tower.device, self.tower.dtype), output_hidden_states=True)
        tokens_NTD: Tensor = outputs.hidden_states[-2][:, 1:]
        return tokens_NTD


def load_image_processor(folder: Path) -> CLIPImageProcessorPil:
    """How a CLIP takes pictures, from its folder. Raises CheckpointError."""
    with checkpoint_errors(folder), quiet_libraries():
        return CLIPImageProcessorPil.from_pretrained(folder, local_files_only=True)


# FOLDED: Reading a transformer's hidden state after its first blocks: VHS (paper: s = LLM(C(h), p)).


class HiddenStateInput(VerifierInput):
    """hidden_NTD after `blocks` blocks of the first step; the paper's h_7 is blocks=8."""

    def __init__(self, blocks: int) -> None:
        self.blocks, self.name, self.stage = blocks, f"hidden:{blocks}", prefix_stage(blocks)

    def width(self, architecture: Architecture) -> int:
        """See `VerifierInput.width`."""
        if self.blocks > architecture.num_blocks:
            raise MismatchError(
                f"the verifier reads after {self.blocks} blocks, but the generator has only {architecture.num_blocks}"
            )
        return architecture.width

    def tokens(self, candidates: Candidates) -> Tensor:
        """See `VerifierInput.tokens`."""
        return candidates.tensor(self.stage)


# FOLDED: Reading the latent that the last block predicts: the paper's baseline "MLLM w/ AE".


class LatentInput(VerifierInput):
    """latents_NCHW of the first step, a token for each place of the latent grid, row by row."""

    name, stage = "latent", latent_stage()

    def width(self, architecture: Architecture) -> int:
        """See `VerifierInput.width`."""
        return architecture.latent_channels

    def tokens(self, candidates: Candidates) -> Tensor:
        """See `VerifierInput.tokens`."""
        return candidates.tensor(self.stage).flatten(2).transpose(1, 2)
