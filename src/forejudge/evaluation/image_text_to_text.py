"""Image-text-to-text models of transformers: loaded with their processor, shown pictures with a text each.

Shape letters: N pictures, L tokens, V words of the vocabulary.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from PIL.Image import Image
from torch import Tensor
from transformers import AutoModelForImageTextToText, AutoProcessor

from forejudge.errors import CheckpointError
from forejudge.library_calls import named_file, quiet_libraries
from forejudge.library_models import load_library_model, load_tokenizer

BATCH_SIZE = 16


@dataclass(frozen=True)
class ImageTextToText:
    """A model with a chat template, and its processor, padding on the left: answers of a batch begin together."""

    model: Any
    processor: Any

    @classmethod
    def from_pretrained(
        cls, folder: Path, device: torch.device, dtype: torch.dtype | Literal["auto"]
    ) -> "ImageTextToText":
        """Load a folder. Raises CheckpointError for one without such a model or its processor."""
        processor = _load_processor(folder)
        model = load_library_model(AutoModelForImageTextToText, folder, dtype, extra_allowed=True)
        return cls(model.eval().to(device), processor)

    @property
    def dtype(self) -> torch.dtype:
        """The precision of its weights."""
        dtype: torch.dtype = self.model.dtype
        return dtype

    def captions(self, pictures: Sequence[Image], text: str, max_new_tokens: int) -> list[str]:
        """What it says of each picture when asked `text`, decoded greedily."""
        answered = self._answers(pictures, [text] * len(pictures), max_new_tokens=max_new_tokens)
        return [text.strip() for text in self.processor.batch_decode(answered.sequences, skip_special_tokens=True)]

    def first_token_logits(self, pictures: Sequence[Image], texts: Sequence[str]) -> Tensor:
        """(N, V), float32: the logits of the first token of each answer."""
        answered = self._answers(pictures, texts, max_new_tokens=1, output_logits=True)
        logits_NV: Tensor = answered.logits[0].float()
        return logits_NV

    @torch.no_grad()
    def _answers(self, pictures: Sequence[Image], texts: Sequence[str], **options: Any) -> Any:
        """What `generate` returns, its sequences without what was asked."""
        with quiet_libraries():  # they would tell that the sampling options of a model are not used
            inputs = self.processor.apply_chat_template(
                [_conversation(picture, text) for picture, text in zip(pictures, texts, strict=True)],
                add_generation_prompt=True,
                tokenize=True,
                return_dict=True,
                return_tensors="pt",
                processor_kwargs={"padding": True},
            ).to(self.model.device, self.model.dtype)
            answered = self.model.generate(
                **inputs, do_sample=False, num_beams=1, return_dict_in_generate=True, **options
            )
        answered.sequences = answered.sequences[:, inputs["input_ids"].shape[1] :]
        return answered


def _load_processor(folder: Path) -> Any:
    with named_file(folder), quiet_libraries():
        processor = AutoProcessor.from_pretrained(folder, trust_remote_code=False, local_files_only=True)
    if not hasattr(processor, "image_processor") or not getattr(processor, "chat_template", None):
        raise CheckpointError(f"{folder} holds no processor of pictures with a chat template: use an instruction model")
    load_tokenizer(type(processor.tokenizer), folder)  # refuses a missing vocabulary, which the processor does not
    processor.tokenizer.padding_side = "left"
    return processor


def _conversation(picture: Image, text: str) -> list[dict[str, Any]]:
    content = [{"type": "image", "image": picture.convert("RGB")}, {"type": "text", "text": text}]
    return [{"role": "user", "content": content}]
