"""Image-text-to-text models of transformers: loaded with their processor, shown pictures with a text each.

Shape letters: N pictures, L tokens, V words of the vocabulary.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from pkgutil import resolve_name
from typing import Any, Literal

import torch
from PIL.Image import Image
from torch import Tensor
from transformers import AutoModelForImageTextToText, AutoProcessor

from forejudge.checkpoint import checkpoint_errors, quiet_libraries, weights_name
from forejudge.device import exact_float32
from forejudge.errors import CheckpointError, InvalidRequest
from forejudge.evaluators.base import Evaluation, Evaluator
from forejudge.hub import local_folder
from forejudge.library_models import load_library_model, load_tokenizer
from forejudge.prompts.prompt_file import PromptLine

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
        model = load_library_model(AutoModelForImageTextToText, folder, dtype, allow_unexpected_keys=True)
        return cls(model.eval().to(device), processor)

    @property
    def dtype(self) -> torch.dtype:
        """The precision of its weights."""
        dtype: torch.dtype = self.model.dtype
        return dtype

    def captions(self, images: Sequence[Image], text: str, max_new_tokens: int) -> list[str]:
        """What it says of each picture when asked `text`, decoded greedily."""
        answered = self._answers(images, [text] * len(images), max_new_tokens=max_new_tokens)
        return [text.strip() for text in self.processor.batch_decode(answered.sequences, skip_special_tokens=True)]

    def first_token_logits(self, images: Sequence[Image], texts: Sequence[str]) -> Tensor:
        """(N, V), float32: the logits of the first token of each answer."""
        answered = self._answers(images, texts, max_new_tokens=1, output_logits=True)
        logits_NV: Tensor = answered.logits[0].float()
        return logits_NV

    @torch.no_grad()
    def _answers(self, images: Sequence[Image], texts: Sequence[str], **options: Any) -> Any:
        """What `generate` returns, its sequences without what was asked."""
        with quiet_libraries():  # they would tell that the sampling options of a model are not used
            inputs = self.processor.apply_chat_template(
                [_conversation(image, text) for image, text in zip(images, texts, strict=True)],
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
    with checkpoint_errors(folder), quiet_libraries():
        processor = AutoProcessor.from_pretrained(folder, trust_remote_code=False, local_files_only=True)
    if not hasattr(processor, "image_processor") or not getattr(processor, "chat_template", None):
        raise CheckpointError(f"{folder} holds no processor of pictures with a chat template: use an instruction model")
    load_tokenizer(type(processor.tokenizer), folder)  # refuses a missing vocabulary, which the processor does not
    processor.tokenizer.padding_side = "left"
    return processor


def _conversation(image: Image, text: str) -> list[dict[str, Any]]:
    content = [{"type": "image", "image": image.convert("RGB")}, {"type": "text", "text": text}]
    return [{"role": "user", "content": content}]


# FOLDED: VQAScore as an evaluator: how probable it is that an image-text-to-text model answers yes when asked for the prompt.
#
# Lin et al., "Evaluating Text-to-Visual Generation with Image-to-Text Generation", 2024. It needs no metadata, and shares
# neither weights nor rules with a detector. Shape letters: N pictures, V words of the vocabulary.


QUESTION = 'Does this figure show "{prompt}"? Please answer yes or no.'
YES = ("yes", "Yes")
LEAST_PROBABILITY = 0.5


class VqaEvaluator(Evaluator):
    """Right is a picture for which the answer yes has a probability of 0.5 or more.

    The probability is a softmax over the whole vocabulary at the first token of the answer, summed over those of the
    spellings "yes" and "Yes" that are one token. Weights keep the precision in which they are stored.
    """

    def __init__(self, name: str, model: ImageTextToText) -> None:
        self.name, self._model = f"vqa ({name})", model
        self._yes = _yes_tokens(name, model.processor.tokenizer)

    @classmethod
    def from_pretrained(cls, name: str, device: torch.device) -> "VqaEvaluator":
        """Load a folder or hub id.

        Raises CheckpointError for one without such a model or its processor, or whose tokenizer needs several tokens
        for every spelling of yes.
        """
        folder = local_folder(name)
        return cls(weights_name(name, folder), ImageTextToText.from_pretrained(folder, device, "auto"))

    def check(self, lines: Sequence[PromptLine]) -> None:
        """See `Evaluator.check`: a prompt must not hold what the tokenizer takes for a mark of its own."""
        for line in lines:
            for mark in self._model.processor.tokenizer.all_special_tokens:
                if mark in line.prompt:
                    raise InvalidRequest(f"{line.where}: {self.name} would take {mark!r} in the prompt for a mark")

    def __call__(self, lines: Sequence[PromptLine], images: Sequence[Image]) -> list[Evaluation]:
        """See `Evaluator.__call__`. Raises CheckpointError where the model gives no numbers."""
        return [
            Evaluation(probability >= LEAST_PROBABILITY, f"P(yes) = {probability:.4f}")
            for probability in self.probabilities([line.prompt for line in lines], images)
        ]

    def probabilities(self, prompts: Sequence[str], images: Sequence[Image]) -> list[float]:
        """P(yes) in [0, 1] of each picture, asked for the prompt at its place."""
        firsts = range(0, len(images), BATCH_SIZE)
        batches = ((prompts[first : first + BATCH_SIZE], images[first : first + BATCH_SIZE]) for first in firsts)
        return [probability for batch in batches for probability in self._of_batch(*batch)]

    def _of_batch(self, prompts: Sequence[str], images: Sequence[Image]) -> list[float]:
        with exact_float32():
            questions = [QUESTION.replace("{prompt}", prompt) for prompt in prompts]
            logits_NV = self._model.first_token_logits(images, questions)
        yes_N = logits_NV.softmax(-1)[:, self._yes].sum(-1)
        if not yes_N.isfinite().all():
            raise CheckpointError(f"{self.name} gave no numbers for a picture: its weights are damaged")
        probabilities: list[float] = yes_N.tolist()
        return probabilities


def _yes_tokens(name: str, tokenizer: Any) -> list[int]:
    """The numbers of the spellings of yes that are one token."""
    spelled = [tokenizer(spelling, add_special_tokens=False).input_ids for spelling in YES]
    single = {tokens[0] for tokens in spelled if len(tokens) == 1} - {tokenizer.unk_token_id}
    if not single:
        raise CheckpointError(
            f"the tokenizer of {name} has no single token for any of {', '.join(YES)}: choose another model"
        )
    return sorted(single)


# FOLDED: Captions for the first stage of training: what a picture shows, said by a model or a function that sees the picture.
#
# The text that a picture was drawn from is no caption: the generator may have drawn something else.


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
    def __call__(self, images: Sequence[Image]) -> list[str]:
        """One caption for each picture, in their order; the same ones in whatever batches the pictures come."""


class ImageTextToTextCaptioner(Captioner):
    """Any image-text-to-text model of transformers with a chat template, decoding greedily."""

    def __init__(self, name: str, model: ImageTextToText) -> None:
        self.name, self.model = name, model

    @classmethod
    def from_pretrained(cls, name: str, device: torch.device, dtype: torch.dtype) -> "ImageTextToTextCaptioner":
        """Load a folder or hub id. Raises CheckpointError for one without such a model or its processor."""
        return cls(name, ImageTextToText.from_pretrained(local_folder(name), device, dtype))

    def __call__(self, images: Sequence[Image]) -> list[str]:
        """See `Captioner`."""
        batches = (images[first : first + BATCH_SIZE] for first in range(0, len(images), BATCH_SIZE))
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
