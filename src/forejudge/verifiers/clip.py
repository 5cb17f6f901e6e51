"""Reading finished pictures through a CLIP vision tower: the paper's baseline "MLLM w/ CLIP"."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import CLIPImageProcessorPil, CLIPVisionModel

from forejudge.compiling import with_compiled_layers
from forejudge.generators.base import Architecture
from forejudge.hub import local_folder
from forejudge.library_calls import named_file, quiet_libraries
from forejudge.library_models import load_library_model
from forejudge.types import IMAGE, Candidates
from forejudge.verifiers.reading import VISION_TOWER, Reading


class ClipReading(Reading):
    """Patch tokens of the tower's last layer but one, without the class token (LLaVA's choice of layer).

    The tower stays as it is: a verifier is trained behind it.
    """

    name, stage = "clip", IMAGE

    def __init__(self, tower: CLIPVisionModel, processor: CLIPImageProcessorPil) -> None:
        self.tower, self.processor = tower.eval().requires_grad_(False), processor

    @classmethod
    def from_pretrained(cls, folder: str | Path, dtype: torch.dtype = torch.float32) -> "ClipReading":
        """Load a folder, or a hub id, that holds a `CLIPVisionModel` and its processor. Raises CheckpointError."""
        folder = local_folder(str(folder))
        tower: Any = load_library_model(CLIPVisionModel, folder, dtype, extra_allowed=True)
        return cls(tower, load_picture_processor(folder))

    def to(self, device: torch.device, dtype: torch.dtype) -> None:
        """See `Reading.to`."""
        self.tower.to(device, dtype)

    def compiled(self) -> "ClipReading":
        """See `Reading.compiled`."""
        return ClipReading(with_compiled_layers(self.tower), self.processor)

    def save_pretrained(self, folder: Path) -> None:
        """See `Reading.save_pretrained`."""
        with quiet_libraries():
            self.tower.save_pretrained(folder / VISION_TOWER)
            self.processor.save_pretrained(folder / VISION_TOWER)

    def width(self, architecture: Architecture) -> int:
        """See `Reading.width`."""
        width: int = self.tower.config.hidden_size
        return width

    @torch.no_grad()
    def tokens(self, candidates: Candidates) -> Tensor:
        """See `Reading.tokens`."""
        pixels_N3HW = self.processor(list(candidates.pictures), return_tensors="pt").pixel_values
        shown = self.tower(pixels_N3HW.to(self.tower.device, self.tower.dtype), output_hidden_states=True)
        tokens_NTD: Tensor = shown.hidden_states[-2][:, 1:]
        return tokens_NTD


def load_picture_processor(folder: Path) -> CLIPImageProcessorPil:
    """How a CLIP takes pictures, from its folder. Raises CheckpointError."""
    with named_file(folder), quiet_libraries():
        return CLIPImageProcessorPil.from_pretrained(folder, local_files_only=True)
