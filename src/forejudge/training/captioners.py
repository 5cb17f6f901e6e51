"""Captions for the first stage of training: what a picture shows, said by a model or a function that sees the picture.

The text that a picture was drawn from is no caption: the generator may have drawn something else.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from pkgutil import resolve_name

import torch
from PIL.Image import Image

from forejudge.errors import InvalidRequest
from forejudge.evaluation.image_text_to_text import BATCH_SIZE, ImageTextToText
from forejudge.hub import local_folder

INSTRUCTION = (
    "Describe this image in one or two sentences: which objects it shows, how many of each, their colors and where "
    "they are. Describe only what can be seen, also where it is wrong, distorted or incomplete."
)
_MAX_NEW_TOKENS = 64

# Captioners that are no model, by name -> "module:class", made without arguments.
OWN_CAPTIONERS = {"miniature": "forejudge.miniature.captioner:MiniatureCaptioner"}


class Captioner(ABC):
    """From pictures to captions. `name` is what `load_captioner` takes."""

    name: str

    @abstractmethod
    def __call__(self, pictures: Sequence[Image]) -> list[str]:
        """One caption for each picture, in their order; the same ones in whatever batches the pictures come."""


class ImageTextToTextCaptioner(Captioner):
    """Any image-text-to-text model of transformers with a chat template, decoding greedily."""

    def __init__(self, name: str, model: ImageTextToText) -> None:
        self.name, self.model = name, model

    @classmethod
    def from_pretrained(cls, name: str, device: torch.device, dtype: torch.dtype) -> "ImageTextToTextCaptioner":
        """Load a folder or hub id. Raises CheckpointError for one without such a model or its processor."""
        return cls(name, ImageTextToText.from_pretrained(local_folder(name), device, dtype))

    def __call__(self, pictures: Sequence[Image]) -> list[str]:
        """See `Captioner`."""
        batches = (pictures[first : first + BATCH_SIZE] for first in range(0, len(pictures), BATCH_SIZE))
        return [caption for batch in batches for caption in self.model.captions(batch, INSTRUCTION, _MAX_NEW_TOKENS)]


def load_captioner(name: str, device: torch.device, dtype: torch.dtype) -> Captioner:
    """The captioner of that name, or the model in a folder or of a hub id.

    Raises InvalidRequest for an unknown name, CheckpointError for a model that cannot be loaded.
    """
    check_captioner(name)
    if name in OWN_CAPTIONERS:
        captioner: Captioner = resolve_name(OWN_CAPTIONERS[name])()
        return captioner
    return ImageTextToTextCaptioner.from_pretrained(name, device, dtype)


def check_captioner(name: str) -> None:
    """Raises InvalidRequest for a name that stands for no captioner; no model is looked for."""
    if name not in OWN_CAPTIONERS and not Path(name).is_dir() and name.count("/") != 1:
        raise InvalidRequest(
            f"unknown captioner {name!r}: expected a folder, a hub id such as google/gemma-3-4b-it, or one of "
            f"{', '.join(OWN_CAPTIONERS)}"
        )
