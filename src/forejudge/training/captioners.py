"""Captions for the first stage of training: what a picture shows, said by a model or a function that sees the picture.

The text that a picture was drawn from is no caption: the generator may have drawn something else.
"""

import importlib
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from PIL.Image import Image
from transformers import AutoModelForImageTextToText, AutoProcessor, PreTrainedModel, ProcessorMixin

from forejudge.checkpoint import load_library_model, load_tokenizer, local_folder, named_file, quiet_libraries
from forejudge.errors import CheckpointError, InvalidRequest

INSTRUCTION = (
    "Describe this image in one or two sentences: which objects it shows, how many of each, their colors and where "
    "they are. Describe only what can be seen, also where it is wrong, distorted or incomplete."
)
BATCH_SIZE = 16
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

    def __init__(self, name: str, model: PreTrainedModel, processor: ProcessorMixin) -> None:
        self.name, self.model, self.processor = name, model.eval(), processor

    @classmethod
    def from_pretrained(cls, name: str, device: torch.device, dtype: torch.dtype) -> "ImageTextToTextCaptioner":
        """Load a folder or hub id. Raises CheckpointError for one without such a model or its processor."""
        folder = local_folder(name)
        processor = _load_processor(folder)
        model: Any = load_library_model(AutoModelForImageTextToText, folder, dtype, extra_allowed=True)
        return cls(name, model.to(device), processor)

    def __call__(self, pictures: Sequence[Image]) -> list[str]:
        """See `Captioner`."""
        batches = (pictures[first : first + BATCH_SIZE] for first in range(0, len(pictures), BATCH_SIZE))
        return [caption for batch in batches for caption in self._describe(batch)]

    @torch.no_grad()
    def _describe(self, pictures: Sequence[Image]) -> list[str]:
        with quiet_libraries():  # they would tell that the sampling options of a model are not used
            inputs = self.processor.apply_chat_template(
                [_conversation(picture) for picture in pictures],
                add_generation_prompt=True,
                tokenize=True,
                return_dict=True,
                return_tensors="pt",
                processor_kwargs={"padding": True},
            ).to(self.model.device, self.model.dtype)
            tokens_NL = self.model.generate(**inputs, do_sample=False, num_beams=1, max_new_tokens=_MAX_NEW_TOKENS)
        new_NL = tokens_NL[:, inputs["input_ids"].shape[1] :]
        return [text.strip() for text in self.processor.batch_decode(new_NL, skip_special_tokens=True)]


def load_captioner(name: str, device: torch.device, dtype: torch.dtype) -> Captioner:
    """The captioner of that name, or the model in a folder or of a hub id.

    Raises InvalidRequest for an unknown name, CheckpointError for a model that cannot be loaded.
    """
    if name in OWN_CAPTIONERS:
        module, _, kind = OWN_CAPTIONERS[name].partition(":")
        captioner: Captioner = getattr(importlib.import_module(module), kind)()
        return captioner
    if not Path(name).is_dir() and name.count("/") != 1:
        raise InvalidRequest(
            f"unknown captioner {name!r}: expected a folder, a hub id such as google/gemma-3-4b-it, or one of "
            f"{', '.join(OWN_CAPTIONERS)}"
        )
    return ImageTextToTextCaptioner.from_pretrained(name, device, dtype)


def _load_processor(folder: Path) -> Any:
    with named_file(folder), quiet_libraries():
        processor = AutoProcessor.from_pretrained(folder, trust_remote_code=False, local_files_only=True)
    if not hasattr(processor, "image_processor") or not getattr(processor, "chat_template", None):
        raise CheckpointError(f"{folder} holds no processor of pictures with a chat template: use an instruction model")
    load_tokenizer(type(processor.tokenizer), folder)  # refuses a missing vocabulary, which the processor does not
    processor.tokenizer.padding_side = "left"  # so that all captions of a batch begin behind the last token
    return processor


def _conversation(picture: Image) -> list[dict[str, Any]]:
    content = [{"type": "image", "image": picture.convert("RGB")}, {"type": "text", "text": INSTRUCTION}]
    return [{"role": "user", "content": content}]
