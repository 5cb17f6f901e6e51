"""Verifier inputs: the stage that a verifier waits for, and the tokens that it reads there.

The paper's verifiers read a hidden state (VHS), the latent (MLLM w/ AE) or the image through CLIP (MLLM w/ CLIP). A new
input is a subclass of `VerifierInput` and one row of VERIFIER_INPUTS.
"""

import re
from abc import ABC, abstractmethod
from collections.abc import Mapping
from copy import copy
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Self

import torch
from pydantic import AfterValidator
from torch import Tensor

from forejudge.checkpoint import checkpoint_errors, quiet_libraries
from forejudge.compiling import compile_layers
from forejudge.errors import InvalidRequest, MismatchError
from forejudge.generators.base import Architecture
from forejudge.hub import local_folder
from forejudge.library_models import load_library_model
from forejudge.types import IMAGE, Candidates, Grid, Stage, latent_stage, prefix_stage

if TYPE_CHECKING:  # they take seconds to import, and only clip needs them
    from transformers import CLIPImageProcessorPil, CLIPVisionModel


class VerifierInput(ABC):
    """Input of a verifier. `name` is its name in recipes and checkpoints, such as "hidden:8"."""

    pattern: ClassVar[str]  # regular expression of its names
    usage: ClassVar[str]  # its names as an error message lists them
    weights_folder: ClassVar[str | None] = None  # of its own weights in a verifier's folder, if it has any

    name: str
    stage: Stage

    @classmethod
    def from_name(cls, name: str, weights: str | Path | None, dtype: torch.dtype) -> Self:
        """Build the input of a name that matches `pattern`, with weights from a folder or hub id if it has any.

        Raises InvalidRequest if it needs weights and gets none, CheckpointError if they cannot be loaded.
        """
        return cls()

    @abstractmethod
    def width(self, architecture: Architecture) -> int:
        """Return the width D of a token. Raises MismatchError if the generator has no such stage."""

    @abstractmethod
    def tokens(self, candidates: Candidates) -> Tensor:
        """Return the tokens (N, T, D) of candidates at `stage`."""

    def grid(self, candidates: Candidates) -> Grid | None:
        """Return the grid of the T tokens; None stands for a square."""
        return None

    def at_step(self, step: int) -> Self:
        """Return the input in another denoising step, counted from 0; its name stays. Finished images have none."""
        clone = copy(self)
        clone.stage = self.stage if self.stage == IMAGE else replace(self.stage, step=step)
        return clone

    def compiled(self) -> Self:
        """Return the input with its weights compiled, if it has any."""
        return self

    def weights(self) -> Mapping[str, Tensor]:
        """Return its weights by name, if it has any."""
        return {}

    def to(self, device: torch.device, dtype: torch.dtype) -> None:  # noqa: B027 - most have no weights
        """Move its weights, if it has any."""

    def save_pretrained(self, folder: Path) -> None:  # noqa: B027
        """Write its weights, if it has any, to `weights_folder` in a verifier's folder."""


class HiddenStateInput(VerifierInput):
    """Hidden state hidden_NTD after `blocks` blocks of the first step; the paper's h_7 is blocks=8."""

    pattern, usage = r"hidden:[1-9]\d*", "hidden:K (after K blocks)"

    def __init__(self, blocks: int) -> None:
        self.blocks, self.name, self.stage = blocks, f"hidden:{blocks}", prefix_stage(blocks)

    @classmethod
    def from_name(cls, name: str, weights: str | Path | None, dtype: torch.dtype) -> Self:
        """See `VerifierInput.from_name`."""
        return cls(int(name.partition(":")[2]))

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

    def grid(self, candidates: Candidates) -> Grid | None:
        """See `VerifierInput.grid`."""
        return candidates.grid


class LatentInput(VerifierInput):
    """Predicted clean latents_NCHW of the first step, one token per place of the latent grid, row by row."""

    pattern = usage = name = "latent"
    stage = latent_stage()

    def width(self, architecture: Architecture) -> int:
        """See `VerifierInput.width`."""
        return architecture.latent_channels

    def tokens(self, candidates: Candidates) -> Tensor:
        """See `VerifierInput.tokens`."""
        return candidates.tensor(self.stage).flatten(2).transpose(1, 2)

    def grid(self, candidates: Candidates) -> Grid:
        """See `VerifierInput.grid`."""
        height, width = candidates.tensor(self.stage).shape[-2:]
        return height, width


class ImageFeaturesInput(VerifierInput):
    """Patch tokens of a CLIP vision tower's last layer but one, without the class token (LLaVA's choice of layer).

    The tower is frozen: a verifier is trained behind it.
    """

    pattern = usage = name = "clip"
    stage, weights_folder = IMAGE, "vision_tower"

    def __init__(self, tower: "CLIPVisionModel", processor: "CLIPImageProcessorPil") -> None:
        self.tower, self.processor = tower.eval().requires_grad_(False), processor

    @classmethod
    def from_name(cls, name: str, weights: str | Path | None, dtype: torch.dtype) -> Self:
        """See `VerifierInput.from_name`."""
        if weights is None:
            raise InvalidRequest("reads = 'clip' needs a vision tower: name a folder or a hub id as vision_tower")
        return cls.from_pretrained(weights, dtype)

    @classmethod
    def from_pretrained(cls, folder: str | Path, dtype: torch.dtype = torch.float32) -> Self:
        """Load a folder or hub id that holds a `CLIPVisionModel` and its processor. Raises CheckpointError."""
        from transformers import CLIPVisionModel

        folder = local_folder(str(folder))
        tower: Any = load_library_model(CLIPVisionModel, folder, dtype, allow_unexpected_keys=True)
        return cls(tower, load_image_processor(folder))

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

    def compiled(self) -> Self:
        """See `VerifierInput.compiled`."""
        return type(self)(compile_layers(self.tower), self.processor)

    def weights(self) -> Mapping[str, Tensor]:
        """See `VerifierInput.weights`."""
        return self.tower.state_dict()

    def to(self, device: torch.device, dtype: torch.dtype) -> None:
        """See `VerifierInput.to`."""
        self.tower.to(device, dtype)

    def save_pretrained(self, folder: Path) -> None:
        """See `VerifierInput.save_pretrained`."""
        with quiet_libraries():
            self.tower.save_pretrained(folder / self.weights_folder)
            self.processor.save_pretrained(folder / self.weights_folder)


# A name's part before the colon -> its class.
VERIFIER_INPUTS: dict[str, type[VerifierInput]] = {
    "hidden": HiddenStateInput,
    "latent": LatentInput,
    "clip": ImageFeaturesInput,
}


def build_verifier_input(
    name: str, weights: str | Path | None = None, dtype: torch.dtype = torch.float32
) -> VerifierInput:
    """Build the input of a name: "hidden:K", "latent", or "clip" with its vision tower (a folder or hub id) as weights.

    Raises InvalidRequest for any other name, CheckpointError for weights that cannot be loaded.
    """
    try:
        input_class = _input_class(name)
    except ValueError as error:
        raise InvalidRequest(f"reads = {name!r}: {error}") from None
    return input_class.from_name(name, weights, dtype)


def load_verifier_input(name: str, folder: Path, dtype: torch.dtype = torch.float32) -> VerifierInput:
    """Build the input of a verifier kept in `folder`, with the weights that are there. Raises CheckpointError."""
    input_class = _input_class(name)
    weights = folder / input_class.weights_folder if input_class.weights_folder else None
    return input_class.from_name(name, weights, dtype)


def load_image_processor(folder: Path) -> "CLIPImageProcessorPil":
    """Load a CLIP's image processor. Raises CheckpointError."""
    from transformers import CLIPImageProcessorPil

    with checkpoint_errors(folder), quiet_libraries():
        return CLIPImageProcessorPil.from_pretrained(folder, local_files_only=True)


def _input_class(name: str) -> type[VerifierInput]:
    """Look a name up. Raises ValueError listing the known ones."""
    input_class = VERIFIER_INPUTS.get(name.partition(":")[0])
    if input_class is None or not re.fullmatch(input_class.pattern, name):
        *others, last = (known.usage for known in VERIFIER_INPUTS.values())
        raise ValueError(f"expected {', '.join(others)} or {last}")
    return input_class


def _check_name(name: str) -> str:
    _input_class(name)
    return name


VerifierInputName = Annotated[str, AfterValidator(_check_name)]
"""Name of a verifier input: hidden:K (after K blocks), latent or clip."""
