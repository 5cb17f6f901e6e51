"""Verifier inputs: the stage that a verifier waits for, and the tokens that it reads there.

The paper's verifiers read a hidden state (VHS), the latent (MLLM w/ AE) or the image through CLIP (MLLM w/ CLIP).
`PreviewInput` is the cheapest form of the last: CLIP sees what a small distilled decoder makes of the latent. A new
input is a subclass of `VerifierInput` and one row of VERIFIER_INPUTS.
"""

import re
from abc import ABC, abstractmethod
from collections.abc import Mapping
from copy import copy
from dataclasses import dataclass, replace
from math import isqrt
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Final, Literal, Self

import torch
import torch.nn.functional as F
from pydantic import AfterValidator
from torch import Tensor, nn

from forejudge.checkpoint import checkpoint_errors, quiet_libraries
from forejudge.compiling import compile_layers, compile_submodule
from forejudge.errors import InvalidRequest, MismatchError
from forejudge.generators.base import Architecture
from forejudge.hub import local_folder
from forejudge.library_models import load_library_model
from forejudge.types import IMAGE, Candidates, Grid, Stage, latent_stage, prefix_stage
from forejudge.verifiers.tiny_decoder import decode_previews, load_tiny_decoder

if TYPE_CHECKING:  # they take seconds to import, and only clip and preview need them
    from transformers import CLIPImageProcessorPil, CLIPVisionModel

    from forejudge.verifiers.tiny_decoder import TinyAutoencoder

VISION_TOWER: Final = "vision_tower"  # field of recipes, and folder of a verifier
TINY_DECODER: Final = "tiny_decoder"


@dataclass(frozen=True)
class InputWeights:
    """Folders or hub ids of the models that verifier inputs see with; None for those that are not needed."""

    vision_tower: str | Path | None = None
    tiny_decoder: str | Path | None = None

    @classmethod
    def in_folder(cls, folder: Path) -> Self:
        """Return the weights that a verifier keeps in its folder."""
        return cls(folder / VISION_TOWER, folder / TINY_DECODER)

    def required(self, field: Literal["vision_tower", "tiny_decoder"], reads: str) -> str | Path:
        """Return one of the fields. Raises InvalidRequest if it is None."""
        weights: str | Path | None = getattr(self, field)
        if weights is None:
            raise InvalidRequest(
                f"reads = {reads!r} needs a {field.replace('_', ' ')}: name a folder or a hub id as {field}"
            )
        return weights


class VerifierInput(ABC):
    """Input of a verifier. `name` is its name in recipes and checkpoints, such as "hidden:8"."""

    pattern: ClassVar[str]  # regular expression of its names
    usage: ClassVar[str]  # its names as an error message lists them
    derived_from: ClassVar[str | None] = None  # name of an input whose recorded tokens `derive` can start from

    name: str
    stage: Stage

    @classmethod
    def from_name(cls, name: str, weights: InputWeights, dtype: torch.dtype) -> Self:
        """Build the input of a name that matches `pattern`, with those of `weights` that it needs.

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

    def derive(self, recorded_NTD: Tensor, grid: Grid | None) -> Tensor:
        """Compute tokens (N, T, D), on a square grid, from recorded ones of the input `derived_from` and their grid."""
        raise NotImplementedError(f"{self.name} is derived from no other input")

    def at_step(self, step: int) -> Self:
        """Return the input in another denoising step, counted from 0; its name stays. Finished images have none."""
        clone = copy(self)
        clone.stage = self.stage if self.stage == IMAGE else replace(self.stage, step=step)
        return clone

    def compiled(self) -> Self:
        """Return the input with its weights compiled, if it has any."""
        return self

    def modules(self) -> tuple[nn.Module, ...]:
        """Return the models that it sees with, if it has any."""
        return ()

    def weights(self) -> Mapping[str, Tensor]:
        """Return its weights by name, if it has any."""
        return {}

    def to(self, device: torch.device, dtype: torch.dtype) -> None:  # noqa: B027 - most have no weights
        """Move its weights, if it has any."""

    def save_pretrained(self, folder: Path) -> None:  # noqa: B027
        """Write its weights, if it has any, to a verifier's folder, where `InputWeights.in_folder` finds them."""


class HiddenStateInput(VerifierInput):
    """Hidden state hidden_NTD after `blocks` blocks of the first step; the paper's h_7 is blocks=8."""

    pattern, usage = r"hidden:[1-9]\d*", "hidden:K (after K blocks)"

    def __init__(self, blocks: int) -> None:
        self.blocks, self.name, self.stage = blocks, f"hidden:{blocks}", prefix_stage(blocks)

    @classmethod
    def from_name(cls, name: str, weights: InputWeights, dtype: torch.dtype) -> Self:
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

    @staticmethod
    def latents(tokens_NTD: Tensor, grid: Grid | None) -> Tensor:
        """Return the latents (N, C, H, W) that tokens were made of; without a grid they are a square."""
        side = isqrt(tokens_NTD.shape[1])
        return tokens_NTD.transpose(1, 2).unflatten(2, grid or (side, side))


class ImageFeaturesInput(VerifierInput):
    """Patch tokens of a CLIP vision tower's last layer but one, without the class token (LLaVA's choice of layer).

    The tower is frozen: a verifier is trained behind it.
    """

    pattern = usage = name = "clip"
    stage = IMAGE

    def __init__(self, tower: "CLIPVisionModel", processor: "CLIPImageProcessorPil") -> None:
        self.tower, self.processor = tower.eval().requires_grad_(False), processor

    @classmethod
    def from_name(cls, name: str, weights: InputWeights, dtype: torch.dtype) -> Self:
        """See `VerifierInput.from_name`."""
        return cls.from_pretrained(weights.required(VISION_TOWER, name), dtype)

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

    def tokens(self, candidates: Candidates) -> Tensor:
        """See `VerifierInput.tokens`."""
        return self.features(self.processor(list(candidates.images), return_tensors="pt").pixel_values)

    @torch.no_grad()
    def features(self, pixels_N3HW: Tensor) -> Tensor:
        """Return the tokens of preprocessed images."""
        outputs = self.tower(pixels_N3HW.to(self.tower.device, self.tower.dtype), output_hidden_states=True)
        tokens_NTD: Tensor = outputs.hidden_states[-2][:, 1:]
        return tokens_NTD

    def preprocess(self, images_N3HW: Tensor) -> Tensor:
        """Preprocess images in [-1, 1] on their device as the processor does files, without rounding to 8 bits."""
        side, (height, width) = self.tower.config.image_size, images_N3HW.shape[-2:]
        images_N3HW = (images_N3HW.float().clamp(-1, 1) + 1) / 2
        if min(height, width) != side:
            size = [side * each // min(height, width) for each in (height, width)]
            images_N3HW = F.interpolate(images_N3HW, size, mode="bicubic", antialias=True).clamp(0, 1)
        top, left = ((each - side) // 2 for each in images_N3HW.shape[-2:])
        mean, std = (
            torch.tensor(values, device=images_N3HW.device).view(3, 1, 1)
            for values in (self.processor.image_mean, self.processor.image_std)
        )
        return (images_N3HW[..., top : top + side, left : left + side] - mean) / std

    def compiled(self) -> Self:
        """See `VerifierInput.compiled`."""
        return type(self)(compile_layers(self.tower), self.processor)

    def modules(self) -> tuple[nn.Module, ...]:
        """See `VerifierInput.modules`."""
        return (self.tower,)

    def weights(self) -> Mapping[str, Tensor]:
        """See `VerifierInput.weights`."""
        return self.tower.state_dict()

    def to(self, device: torch.device, dtype: torch.dtype) -> None:
        """See `VerifierInput.to`."""
        self.tower.to(device, dtype)

    def save_pretrained(self, folder: Path) -> None:
        """See `VerifierInput.save_pretrained`."""
        with quiet_libraries():
            self.tower.save_pretrained(folder / VISION_TOWER)
            self.processor.save_pretrained(folder / VISION_TOWER)


class PreviewInput(VerifierInput):
    """Patch tokens of a CLIP vision tower that sees a preview of the image: the latent through a tiny decoder.

    Tower and decoder are frozen; for the decoder see `tiny_decoder`.
    """

    pattern = usage = name = "preview"
    stage, derived_from = latent_stage(), LatentInput.name

    def __init__(self, image_features: ImageFeaturesInput, autoencoder: "TinyAutoencoder") -> None:
        self.image_features, self.autoencoder = image_features, autoencoder.eval().requires_grad_(False)

    @classmethod
    def from_name(cls, name: str, weights: InputWeights, dtype: torch.dtype) -> Self:
        """See `VerifierInput.from_name`."""
        tower, decoder = weights.required(VISION_TOWER, name), weights.required(TINY_DECODER, name)
        return cls(ImageFeaturesInput.from_pretrained(tower, dtype), load_tiny_decoder(decoder, dtype))

    def width(self, architecture: Architecture) -> int:
        """See `VerifierInput.width`. Raises MismatchError for a decoder of latents with other channels."""
        channels = self.autoencoder.config.latent_channels
        if channels != architecture.latent_channels:
            raise MismatchError(
                f"the tiny decoder takes latents of {channels} channels, but the generator's have "
                f"{architecture.latent_channels}: use the one that was distilled from the generator's autoencoder"
            )
        return self.image_features.width(architecture)

    def tokens(self, candidates: Candidates) -> Tensor:
        """See `VerifierInput.tokens`. Raises MismatchError for latents of another scale."""
        return self._tokens_of_latents(candidates.tensor(self.stage))

    def _tokens_of_latents(self, latents_NCHW: Tensor) -> Tensor:
        previews_N3HW = decode_previews(self.autoencoder, latents_NCHW)
        return self.image_features.features(self.image_features.preprocess(previews_N3HW))

    def derive(self, recorded_NTD: Tensor, grid: Grid | None) -> Tensor:
        """See `VerifierInput.derive`: decode recorded latents."""
        return self._tokens_of_latents(LatentInput.latents(recorded_NTD, grid))

    def compiled(self) -> Self:
        """See `VerifierInput.compiled`."""
        clone = copy(self)
        clone.image_features = self.image_features.compiled()
        clone.autoencoder = compile_submodule(self.autoencoder, "decoder")
        return clone

    def modules(self) -> tuple[nn.Module, ...]:
        """See `VerifierInput.modules`."""
        return (*self.image_features.modules(), self.autoencoder.decoder)

    def weights(self) -> Mapping[str, Tensor]:
        """See `VerifierInput.weights`: not those of the encoder, which never runs."""
        decoder = self.autoencoder.decoder.state_dict()
        return {**self.image_features.weights(), **{f"{TINY_DECODER}.{name}": each for name, each in decoder.items()}}

    def to(self, device: torch.device, dtype: torch.dtype) -> None:
        """See `VerifierInput.to`."""
        self.image_features.to(device, dtype)
        self.autoencoder.decoder.to(device, dtype)

    def save_pretrained(self, folder: Path) -> None:
        """See `VerifierInput.save_pretrained`."""
        self.image_features.save_pretrained(folder)
        with quiet_libraries():
            self.autoencoder.save_pretrained(folder / TINY_DECODER)


# A name's part before the colon -> its class.
VERIFIER_INPUTS: dict[str, type[VerifierInput]] = {
    "hidden": HiddenStateInput,
    "latent": LatentInput,
    "clip": ImageFeaturesInput,
    "preview": PreviewInput,
}


def build_verifier_input(
    name: str, weights: InputWeights = InputWeights(), dtype: torch.dtype = torch.float32
) -> VerifierInput:
    """Build the input of a name: "hidden:K", "latent", "clip" or "preview", the last two with their weights.

    Raises InvalidRequest for any other name, CheckpointError for weights that cannot be loaded.
    """
    try:
        input_class = find_input_class(name)
    except ValueError as error:
        raise InvalidRequest(f"reads = {name!r}: {error}") from None
    return input_class.from_name(name, weights, dtype)


def load_verifier_input(name: str, folder: Path, dtype: torch.dtype = torch.float32) -> VerifierInput:
    """Build the input of a verifier kept in `folder`, with the weights that are there. Raises CheckpointError."""
    return find_input_class(name).from_name(name, InputWeights.in_folder(folder), dtype)


def load_image_processor(folder: Path) -> "CLIPImageProcessorPil":
    """Load a CLIP's image processor. Raises CheckpointError."""
    from transformers import CLIPImageProcessorPil

    with checkpoint_errors(folder), quiet_libraries():
        return CLIPImageProcessorPil.from_pretrained(folder, local_files_only=True)


def find_input_class(name: str) -> type[VerifierInput]:
    """Look a name up. Raises ValueError listing the known ones."""
    input_class = VERIFIER_INPUTS.get(name.partition(":")[0])
    if input_class is None or not re.fullmatch(input_class.pattern, name):
        *others, last = (known.usage for known in VERIFIER_INPUTS.values())
        raise ValueError(f"expected {', '.join(others)} or {last}")
    return input_class


def _check_name(name: str) -> str:
    find_input_class(name)
    return name


VerifierInputName = Annotated[str, AfterValidator(_check_name)]
"""Name of a verifier input: hidden:K (after K blocks), latent, clip or preview."""
