"""From rows of a folder to what a model is trained on: picture tokens, and text on both sides of them.

Shapes: N rows of a batch, L text tokens, padded on the right to the longest of the batch.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache

import torch
from torch import Tensor
from torch.utils.data import Dataset

from forejudge.training.states import States
from forejudge.verifiers.question import Question

IGNORED = -100  # the label of what is not to be learnt, as torch's and transformers' losses have it
_QUESTIONS_KEPT = 2**16


Collate = Callable[[list[int]], dict[str, Tensor]]


class Rows(Dataset[tuple[Collate, int]]):
    """Numbers of rows, each with what makes a batch of it: a trainer has one collator for training and validation."""

    def __init__(self, rows: Sequence[int], collate: Collate) -> None:
        self.rows, self.collate = list(rows), collate

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, place: int) -> tuple[Collate, int]:
        return self.collate, self.rows[place]


def collated(items: list[tuple[Collate, int]]) -> dict[str, Tensor]:
    """A batch of one `Rows`."""
    collate = items[0][0]
    return collate([row for _, row in items])


@dataclass(frozen=True)
class QuestionBatches:
    """Stage 2: rows as questions; the label is 1 where the picture is right. A function of the rows alone."""

    states: States
    question: Question
    prompts: Sequence[str]
    correct: Sequence[bool]

    def __call__(self, rows: list[int]) -> dict[str, Tensor]:
        sides = [self._tokens_of(self.prompts[row]) for row in rows]
        right_NL, mask_NL = padded([right for _, right in sides])
        return {
            "tokens_NTD": self.states.tokens(rows),
            "left_NL": torch.tensor([left for left, _ in sides]),
            "right_NL": right_NL,
            "mask_NL": mask_NL,
            "labels": torch.tensor([int(self.correct[row]) for row in rows]),
        }

    @cached_property
    def _tokens_of(self) -> Callable[[str], tuple[list[int], list[int]]]:
        """Both sides of a question; the candidates of a prompt, and every epoch, ask the same one."""
        return lru_cache(maxsize=_QUESTIONS_KEPT)(self.question.tokens_around_picture)


@dataclass(frozen=True)
class CaptionBatches:
    """Stage 1: rows as captions to be said after an instruction; only their tokens are labels."""

    states: States
    instruction: Question
    captions: Sequence[str]

    def __call__(self, rows: list[int]) -> dict[str, Tensor]:
        left, asked = self.instruction.tokens_around_picture("")
        said = [self.instruction.answer(self.captions[row]) for row in rows]
        right_NL, mask_NL = padded([asked + tokens for tokens in said])
        learnt_NL = mask_NL.bool()
        learnt_NL[:, : len(asked)] = False
        return {
            "tokens_NTD": self.states.tokens(rows),
            "left_NL": torch.tensor([left] * len(rows)),
            "right_NL": right_NL,
            "labels": right_NL.masked_fill(~learnt_NL, IGNORED),
        }


def padded(texts: Sequence[Sequence[int]]) -> tuple[Tensor, Tensor]:
    """Token numbers padded on the right with 0, and which are real: (N, L) each."""
    longest = max(map(len, texts))
    ids = [[*text, *[0] * (longest - len(text))] for text in texts]
    mask = [[1] * len(text) + [0] * (longest - len(text)) for text in texts]
    return torch.tensor(ids), torch.tensor(mask)
