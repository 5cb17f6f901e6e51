"""VQAScore as an evaluator: how probable it is that an image-text-to-text model answers yes when asked for the prompt.

Lin et al., "Evaluating Text-to-Visual Generation with Image-to-Text Generation", 2024. It needs no metadata, and shares
neither weights nor rules with a detector. Shape letters: N pictures, V words of the vocabulary.
"""

from collections.abc import Sequence
from typing import Any

import torch
from PIL.Image import Image

from forejudge.checkpoint import weights_name
from forejudge.device import exact_float32
from forejudge.errors import CheckpointError, InvalidRequest
from forejudge.evaluation.evaluators import Evaluator, Judgement
from forejudge.evaluation.image_text_to_text import BATCH_SIZE, ImageTextToText
from forejudge.evaluation.prompts_file import PromptLine
from forejudge.hub import local_folder

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

    def __call__(self, lines: Sequence[PromptLine], pictures: Sequence[Image]) -> list[Judgement]:
        """See `Evaluator.__call__`. Raises CheckpointError where the model gives no numbers."""
        return [
            Judgement(probability >= LEAST_PROBABILITY, f"P(yes) = {probability:.4f}")
            for probability in self.probabilities([line.prompt for line in lines], pictures)
        ]

    def probabilities(self, prompts: Sequence[str], pictures: Sequence[Image]) -> list[float]:
        """P(yes) in [0, 1] of each picture, asked for the prompt at its place."""
        firsts = range(0, len(pictures), BATCH_SIZE)
        batches = ((prompts[first : first + BATCH_SIZE], pictures[first : first + BATCH_SIZE]) for first in firsts)
        return [probability for batch in batches for probability in self._of_batch(*batch)]

    def _of_batch(self, prompts: Sequence[str], pictures: Sequence[Image]) -> list[float]:
        with exact_float32():
            questions = [QUESTION.replace("{prompt}", prompt) for prompt in prompts]
            logits_NV = self._model.first_token_logits(pictures, questions)
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
