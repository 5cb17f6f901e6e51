"""Image-text-to-text models of transformers as VQAScore evaluator and as captioner.

Shape letters: N images, L tokens, V words of the vocabulary.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from PIL.Image import Image
from torch import Tensor
from transformers import AutoModelForImageTextToText, AutoProcessor

from forejudge.checkpoint import checkpoint_errors, quiet_libraries, weights_name
from forejudge.device import exact_float32
from forejudge.errors import CheckpointError, InvalidRequest
from forejudge.evaluators.base import Captioner, Evaluation, Evaluator
from forejudge.hub import local_folder
from forejudge.library_models import load_library_model, load_tokenizer
from forejudge.prompts.prompt_file import PromptLine

BATCH_SIZE = 16
QUESTION = 'Does this figure show "{prompt}"? Please answer yes or no.'
YES = ("yes", "Yes")
MIN_PROBABILITY = 0.5
# A caption describes the image, not its prompt: the generator may have generated something else.
INSTRUCTION = (
    "Describe this image in one or two sentences: which objects it shows, how many of each, their colors and where "
    "they are. Describe only what can be seen, also where it is wrong, distorted or incomplete."
)
_MAX_NEW_TOKENS = 64


class VqaEvaluator(Evaluator):
    """VQAScore as an evaluator: an image is correct if P(yes) is at least 0.5 when the model is asked for the prompt.

    P(yes) is a softmax over the whole vocabulary at the first token of the answer, summed over those of the spellings
    "yes" and "Yes" that are one token. It needs no metadata, and shares neither weights nor rules with a detector.
    Weights keep their stored precision. Lin et al., "Evaluating Text-to-Visual Generation with Image-to-Text
    Generation", 2024.
    """

    def __init__(self, name: str, model: "ImageTextToText") -> None:
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
        """See `Evaluator.check`. Refuses a prompt that holds a special token of the tokenizer."""
        for line in lines:
            for token in self._model.processor.tokenizer.all_special_tokens:
                if token in line.prompt:
                    raise InvalidRequest(
                        f"{line.where}: {self.name} would read {token!r} in the prompt as a special token"
                    )

    def __call__(self, lines: Sequence[PromptLine], images: Sequence[Image]) -> list[Evaluation]:
        """See `Evaluator.__call__`. Raises CheckpointError where the model returns NaN."""
        return [
            Evaluation(probability >= MIN_PROBABILITY, f"P(yes) = {probability:.4f}")
            for probability in self.probabilities([line.prompt for line in lines], images)
        ]

    def probabilities(self, prompts: Sequence[str], images: Sequence[Image]) -> list[float]:
        """Return P(yes) in [0, 1] for each image and the prompt at its index."""
        firsts = range(0, len(images), BATCH_SIZE)
        batches = ((prompts[first : first + BATCH_SIZE], images[first : first + BATCH_SIZE]) for first in firsts)
        return [probability for batch in batches for probability in self._batch_probabilities(*batch)]

    def _batch_probabilities(self, prompts: Sequence[str], images: Sequence[Image]) -> list[float]:
        with exact_float32():
            questions = [QUESTION.replace("{prompt}", prompt) for prompt in prompts]
            logits_NV = self._model.first_token_logits(images, questions)
        yes_N = logits_NV.softmax(-1)[:, self._yes].sum(-1)
        if not yes_N.isfinite().all():
            raise CheckpointError(f"{self.name} returned NaN for an image: its weights are damaged")
        probabilities: list[float] = yes_N.tolist()
        return probabilities


class ImageTextToTextCaptioner(Captioner):
    """Captioner made of any image-text-to-text model with a chat template; decodes greedily."""

    def __init__(self, name: str, model: "ImageTextToText") -> None:
        self.name, self.model = name, model

    @classmethod
    def from_pretrained(cls, name: str, device: torch.device, dtype: torch.dtype) -> "ImageTextToTextCaptioner":
        """Load a folder or hub id. Raises CheckpointError for one without such a model or its processor."""
        return cls(name, ImageTextToText.from_pretrained(local_folder(name), device, dtype))

    def __call__(self, images: Sequence[Image]) -> list[str]:
        """See `Captioner.__call__`."""
        batches = (images[first : first + BATCH_SIZE] for first in range(0, len(images), BATCH_SIZE))
        return [caption for batch in batches for caption in self.model.captions(batch, INSTRUCTION, _MAX_NEW_TOKENS)]


@dataclass(frozen=True)
class ImageTextToText:
    """Model with a chat template and its processor, which pads on the left so that a batch's answers start together."""

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
        """Precision of the weights."""
        dtype: torch.dtype = self.model.dtype
        return dtype

    def captions(self, images: Sequence[Image], text: str, max_new_tokens: int) -> list[str]:
        """Return the greedily decoded answer to `text` for each image."""
        output = self._generate(images, [text] * len(images), max_new_tokens=max_new_tokens)
        return [text.strip() for text in self.processor.batch_decode(output.sequences, skip_special_tokens=True)]

    def first_token_logits(self, images: Sequence[Image], texts: Sequence[str]) -> Tensor:
        """Return the logits of the first token of each answer: (N, V), float32."""
        output = self._generate(images, texts, max_new_tokens=1, output_logits=True)
        logits_NV: Tensor = output.logits[0].float()
        return logits_NV

    @torch.no_grad()
    def _generate(self, images: Sequence[Image], texts: Sequence[str], **options: Any) -> Any:
        """Return the output of `generate`, its sequences without the prompt tokens."""
        with quiet_libraries():  # they warn that a model's sampling options are not used
            inputs = self.processor.apply_chat_template(
                [_conversation(image, text) for image, text in zip(images, texts, strict=True)],
                add_generation_prompt=True,
                tokenize=True,
                return_dict=True,
                return_tensors="pt",
                processor_kwargs={"padding": True},
            ).to(self.model.device, self.model.dtype)
            output = self.model.generate(
                **inputs, do_sample=False, num_beams=1, return_dict_in_generate=True, **options
            )
        output.sequences = output.sequences[:, inputs["input_ids"].shape[1] :]
        return output


def _load_processor(folder: Path) -> Any:
    with checkpoint_errors(folder), quiet_libraries():
        processor = AutoProcessor.from_pretrained(folder, trust_remote_code=False, local_files_only=True)
    if not hasattr(processor, "image_processor") or not getattr(processor, "chat_template", None):
        raise CheckpointError(f"{folder} holds no image processor with a chat template: use an instruction model")
    load_tokenizer(type(processor.tokenizer), folder)  # refuses a missing vocabulary, which the processor does not
    processor.tokenizer.padding_side = "left"
    return processor


def _conversation(image: Image, text: str) -> list[dict[str, Any]]:
    content = [{"type": "image", "image": image.convert("RGB")}, {"type": "text", "text": text}]
    return [{"role": "user", "content": content}]


def _yes_tokens(name: str, tokenizer: Any) -> list[int]:
    """Return the token ids of the spellings of yes that are one token."""
    spellings = [tokenizer(spelling, add_special_tokens=False).input_ids for spelling in YES]
    single = {tokens[0] for tokens in spellings if len(tokens) == 1} - {tokenizer.unk_token_id}
    if not single:
        raise CheckpointError(
            f"the tokenizer of {name} has no single token for any of {', '.join(YES)}: choose another model"
        )
    return sorted(single)
