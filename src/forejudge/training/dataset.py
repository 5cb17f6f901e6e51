"""A folder of drawn candidates as training sees it: columns, groups, and what a verifier reads of each row."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from forejudge.candidates.features import RecomputedStates, RecordedStates, States, channel_statistics
from forejudge.candidates.store import CandidateStore
from forejudge.device import dtype_name
from forejudge.errors import CheckpointError, InvalidRequest, MismatchError
from forejudge.evaluation.metrics import VerifierMetrics, verifier_metrics
from forejudge.generators.base import Generator
from forejudge.prompts.geneval import normalised_text
from forejudge.training.model import Verification, log_odds
from forejudge.verifiers.config import Calibration, fit_calibration
from forejudge.verifiers.inputs import VerifierInput
from forejudge.verifiers.question import Question

# FOLDED: From rows of a folder to what a model is trained on: picture tokens, and text on both sides of them.
#
# Shapes: N rows of a batch, L text tokens, padded on the right to the longest of the batch.


IGNORE_INDEX = -100  # the label of what is not to be learnt, as torch's and transformers' losses have it
_MAX_CACHED_QUESTIONS = 2**16


Collate = Callable[[list[int]], dict[str, Tensor]]


class RowDataset(Dataset[tuple[Collate, int]]):
    """Numbers of rows, each with what makes a batch of it: a trainer has one collator for training and validation."""

    def __init__(self, rows: Sequence[int], collate: Collate) -> None:
        self.rows, self.collate = list(rows), collate

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> tuple[Collate, int]:
        return self.collate, self.rows[index]


def collate_rows(items: list[tuple[Collate, int]]) -> dict[str, Tensor]:
    """A batch of one `RowDataset`."""
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
        right_NL, mask_NL = pad_right([right for _, right in sides])
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
        return lru_cache(maxsize=_MAX_CACHED_QUESTIONS)(self.question.tokens_around_image)


@dataclass(frozen=True)
class CaptionBatches:
    """Stage 1: rows as captions to be said after an instruction; only their tokens are labels."""

    states: States
    instruction: Question
    captions: Sequence[str]

    def __call__(self, rows: list[int]) -> dict[str, Tensor]:
        left, instruction_ids = self.instruction.tokens_around_image("")
        said = [self.instruction.encode_answer(self.captions[row]) for row in rows]
        right_NL, mask_NL = pad_right([instruction_ids + tokens for tokens in said])
        is_target_NL = mask_NL.bool()
        is_target_NL[:, : len(instruction_ids)] = False
        return {
            "tokens_NTD": self.states.tokens(rows),
            "left_NL": torch.tensor([left] * len(rows)),
            "right_NL": right_NL,
            "labels": right_NL.masked_fill(~is_target_NL, IGNORE_INDEX),
        }


def pad_right(texts: Sequence[Sequence[int]]) -> tuple[Tensor, Tensor]:
    """Token numbers padded on the right with 0, and which are real: (N, L) each."""
    longest = max(map(len, texts))
    ids = [[*text, *[0] * (longest - len(text))] for text in texts]
    mask = [[1] * len(text) + [0] * (longest - len(text)) for text in texts]
    return torch.tensor(ids), torch.tensor(mask)


@dataclass(frozen=True)
class StoredRows:
    """All rows of a finished folder. Raises CheckpointError for one that is unfinished or has no such column."""

    folder: CandidateStore

    @classmethod
    def of(cls, folder: Path, generator: Generator) -> "StoredRows":
        """Raises MismatchError where another generator drew them, or the same in another dtype."""
        rows = cls(CandidateStore(folder))
        stored_fingerprint, dtype = rows.folder.settings.revision, rows.folder.settings.dtype
        if stored_fingerprint != generator.fingerprint:
            raise MismatchError(
                f"{folder} was drawn by weights {stored_fingerprint}, {generator.name} has {generator.fingerprint}: draw it anew"
            )
        if dtype != (generator_dtype := dtype_name(generator.dtype)):
            raise MismatchError(
                f"{folder} was drawn in {dtype}, the generator runs in {generator_dtype}: make them the same"
            )
        return rows

    def __len__(self) -> int:
        return len(self.prompts)

    def column(self, name: str) -> list[Any]:
        """One value a row."""
        if name not in self._table.column_names:
            raise CheckpointError(f"{self.folder.folder} has no column {name}: was it made by another command?")
        values: list[Any] = self._table[name].to_pylist()
        return values

    @cached_property
    def prompts(self) -> list[str]:
        """The prompt of each row."""
        return self.column("prompt")

    @cached_property
    def correct(self) -> NDArray[np.bool_]:
        """Whether each row's picture is right."""
        return np.array(self.column("correct"), dtype=np.bool_)

    @property
    def groups(self) -> list[tuple[str, int]]:
        """Prompt and image of each row: rows of one group are candidates for one picture."""
        return list(zip(self.prompts, self.column("image_index"), strict=True))

    def states(self, generator: Generator, verifier_input: VerifierInput) -> States:
        """Recorded ones where they are there, otherwise computed anew."""
        if verifier_input.name in self.folder.settings.recorded:
            return RecordedStates(self.folder, verifier_input.name)
        return RecomputedStates(generator, verifier_input, self.prompts, self.column("seed"))

    @cached_property
    def _table(self) -> Any:
        return self.folder.table()


@dataclass(frozen=True)
class TrainingData:
    """What a stage learns from, and the held-out rows by which its best checkpoint is chosen."""

    training: StoredRows
    held_out: StoredRows

    @classmethod
    def of(cls, training: Path, validation: Path, generator: Generator) -> "TrainingData":
        """Raises as `StoredRows.of`, and InvalidRequest where a run would be judged by what it is trained on."""
        data = cls(StoredRows.of(training, generator), StoredRows.of(validation, generator))
        check_held_out(data.training, data.held_out)
        return data

    @property
    def digests(self) -> dict[str, str | None]:
        """What tells both from any other."""
        return {"training": self.training.folder.digest, "validation": self.held_out.folder.digest}


def state_statistics(states: States, count: int, seed: int, max_rows: int) -> tuple[Tensor, Tensor]:
    """Mean and variance of each channel, over `max_rows` of `count` rows at random: (D,) each."""
    order: Sequence[int] = torch.randperm(count, generator=torch.Generator().manual_seed(seed)).tolist()
    return channel_statistics(states.batches(order[:max_rows]))


def check_held_out(training: StoredRows, validation: StoredRows) -> None:
    """Raises InvalidRequest where a run would be judged by what it is trained on."""
    if training.folder.digest == validation.folder.digest:
        raise InvalidRequest(f"{validation.folder.folder} holds the training candidates: draw those of other prompts")


def training_prompt_overlap(training: StoredRows, validation: StoredRows) -> float:
    """How many validation candidates, in [0, 1], were drawn from a text that training candidates were drawn from."""
    training_texts = set(map(normalised_text, set(training.prompts)))
    return float(np.mean([normalised_text(prompt) in training_texts for prompt in validation.prompts]))


# FOLDED: Labelled candidates as questions to one verifier, and how good its answers to them are.


@dataclass(frozen=True)
class LabeledRows:
    """Labelled candidates as questions to one verifier."""

    rows: StoredRows
    batches: QuestionBatches

    @classmethod
    def of(
        cls, rows: StoredRows, generator: Generator, verifier_input: VerifierInput, question: Question
    ) -> "LabeledRows":
        """Raises InvalidRequest where all are right or all are wrong."""
        right = int(rows.correct.sum())
        if right in (0, len(rows)):
            raise InvalidRequest(
                f"{rows.folder.folder}: {right} of {len(rows)} candidates are right, but a verifier needs right and "
                "wrong ones: label more prompts, or harder ones"
            )
        states = rows.states(generator, verifier_input)
        return cls(rows, QuestionBatches(states, question, rows.prompts, rows.correct.tolist()))

    def check_pairs(self) -> None:
        """Raises InvalidRequest where no group has both right and wrong candidates, so that none can be told apart."""
        groups = self.rows.groups
        if len(set(zip(groups, self.rows.correct.tolist(), strict=True))) == len(set(groups)):
            raise InvalidRequest(
                f"{self.rows.folder.folder}: no prompt has both right and wrong candidates, but the best checkpoint is "
                "the one that tells them apart: label more candidates of each prompt"
            )

    def first(self, count: int | None = None) -> RowDataset:
        """So many of the first ones, by default all."""
        return RowDataset(range(len(self.rows))[:count], self.batches)

    def metrics(self, logprobs: NDArray[np.float32]) -> tuple[VerifierMetrics, Calibration]:
        """How good these answers are, with the calibration that fits them best."""
        score = log_odds(torch.from_numpy(logprobs)).double().numpy()
        if not np.isfinite(score).all():
            raise InvalidRequest("training diverged, answers are no numbers: lower learning_rate or change precision")
        calibration = fit_calibration(score.tolist(), self.rows.correct.tolist())
        probability = np.array([calibration.probability(value) for value in score])
        return verifier_metrics(self.rows.groups, self.rows.correct, score, probability), calibration

    @torch.no_grad()
    def logprobs(self, stage: Verification, device: torch.device, size: int = 128) -> NDArray[np.float32]:
        """What a trained stage says of every row."""
        stage.eval()
        said = []
        for rows in torch.arange(len(self.rows)).split(size):
            batch = {name: part.to(device) for name, part in self.batches(rows.tolist()).items() if name != "labels"}
            said.append(stage(**batch)["answered"].float().cpu())
        array: NDArray[np.float32] = torch.cat(said).numpy()
        return array
