"""Stage 2: connector and language model learn from labelled candidates to answer yes or no (paper, "Training")."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from forejudge.errors import InvalidRequest
from forejudge.evaluation.verifier_metrics import VerifierMetrics, verifier_metrics
from forejudge.generators.base import Generator
from forejudge.progress import Report
from forejudge.training.batches import QuestionBatches, Rows
from forejudge.training.data import DrawnRows, state_statistics
from forejudge.training.models import Trainee, aligned_trainee, new_trainee, set_statistics, with_head
from forejudge.training.output import Output
from forejudge.training.recipe import VerifyRecipe
from forejudge.training.stages import Verification, scores
from forejudge.training.trainer import TrainingRun
from forejudge.verifiers.calibration import Calibration, fit_calibration
from forejudge.verifiers.language_model import LanguageModelVerifier, VerifierConfig
from forejudge.verifiers.question import Question
from forejudge.verifiers.reading import Reading, reading_named


@dataclass(frozen=True)
class LabelledRows:
    """Labelled candidates as questions to one verifier."""

    rows: DrawnRows
    batches: QuestionBatches

    @classmethod
    def of(cls, rows: DrawnRows, generator: Generator, reading: Reading, question: Question) -> "LabelledRows":
        """Raises InvalidRequest where all are right or all are wrong."""
        right = int(rows.correct.sum())
        if right in (0, len(rows)):
            raise InvalidRequest(
                f"{rows.folder.folder}: {right} of {len(rows)} candidates are right, but a verifier needs right and "
                "wrong ones: label more prompts, or harder ones"
            )
        states = rows.states(generator, reading)
        return cls(rows, QuestionBatches(states, question, rows.prompts, rows.correct.tolist()))

    @property
    def has_pairs(self) -> bool:
        """Whether any group has both right and wrong candidates."""
        groups = self.rows.groups
        return len(set(zip(groups, self.rows.correct.tolist(), strict=True))) > len(set(groups))

    @property
    def all(self) -> Rows:
        return Rows(range(len(self.rows)), self.batches)

    def metrics(self, answered: NDArray[np.float32]) -> tuple[VerifierMetrics, Calibration]:
        """How good these answers are, with the calibration that fits them best."""
        score = scores(torch.from_numpy(answered)).double().numpy()
        calibration = fit_calibration(score.tolist(), self.rows.correct.tolist())
        probability = np.array([calibration.probability(value) for value in score])
        return verifier_metrics(self.rows.groups, self.rows.correct, score, probability), calibration

    @torch.no_grad()
    def answered(self, stage: Verification, device: torch.device, size: int = 128) -> NDArray[np.float32]:
        """What a trained stage says of every row."""
        stage.eval()
        batches = (self.batches(list(range(first, min(first + size, len(self.rows)))))
                   for first in range(0, len(self.rows), size))  # fmt: skip
        said = [stage(**{name: part.to(device) for name, part in batch.items() if name != "labels"})["answered"]
                for batch in batches]  # fmt: skip
        array: NDArray[np.float32] = torch.cat(said).float().cpu().numpy()
        return array


def verify(
    recipe: VerifyRecipe,
    generator: Generator,
    labels: Path,
    validation: Path,
    out: Path,
    report: Report,
    aligned: Path | None = None,
) -> None:
    """Train a verifier on labelled candidates, calibrate it on those of held-out prompts and leave it in `out`.

    Both folders come from `forejudge label`; without `aligned` the connector starts anew. A stopped run goes on; a
    finished one is left as it is. Raises InvalidRequest where `out` holds another recipe's run.
    """
    output = Output(out, generator)
    if output.begin(recipe):
        return
    reading = reading_named(recipe.reads, recipe.vision_tower)
    reading.to(generator.device, generator.dtype)
    trainee = aligned_trainee(aligned, recipe, generator) if aligned else new_trainee(recipe, reading, generator)
    question = Question(recipe.question, trainee.tokenizer)
    training = LabelledRows.of(DrawnRows.of(labels, generator), generator, reading, question)
    held_out = LabelledRows.of(DrawnRows.of(validation, generator), generator, reading, question)
    if not held_out.has_pairs:
        raise InvalidRequest(
            f"{validation}: no prompt has both right and wrong candidates, but the best checkpoint is the one that "
            "tells them apart: label more candidates of each prompt"
        )
    if aligned is None:
        states = training.batches.states
        statistics = state_statistics(states, len(training.rows), recipe.seed, recipe.statistics_rows)
        set_statistics(trainee, statistics)
    stage = _stage(recipe, trainee, question).to(generator.device)
    run = TrainingRun(
        part="verify",
        module=stage,
        recipe=recipe,
        training=training.all,
        validation=held_out.all,
        loss=_answer_loss(recipe, training.rows.correct),
        chosen_by="pair_accuracy",
        metrics=lambda answered: _figures(held_out, answered),
    )
    if run.train(out, generator.device, report):
        _write(recipe, trainee.merged(), held_out, output, reading)


def _stage(recipe: VerifyRecipe, trainee: Trainee, question: Question) -> Verification:
    if recipe.loss.kind == "regression":
        trainee = with_head(trainee, recipe.seed)
    if recipe.lora is not None:
        trainee = trainee.adapted(recipe.lora)
    if recipe.gradient_checkpointing:
        trainee = trainee.checkpointed()
    return Verification(trainee.model, question.answer_tokens())


def _answer_loss(recipe: VerifyRecipe, correct: NDArray[np.bool_]):  # type: ignore[no-untyped-def]
    loss = recipe.loss.for_labels(correct)

    def summed(outputs: Mapping[str, Tensor], labels_N: Tensor) -> Tensor:
        answered, correct_N = outputs["answered"], labels_N.bool()
        if recipe.loss.kind == "regression":
            return loss(answered[:, 0], correct_N).sum()
        return loss(torch.where(correct_N, answered[:, 0], answered[:, 1]), correct_N).sum()

    return summed


def _figures(held_out: LabelledRows, answered: NDArray[np.float32]) -> dict[str, float]:
    found = held_out.metrics(answered)[0].to_json()
    return {name: float(value) for name, value in found.items() if value is not None}


def _write(recipe: VerifyRecipe, trainee: Trainee, held_out: LabelledRows, output: Output, reading: Reading) -> None:
    """Calibrate what will be loaded: the weights as they are stored, without the trainer's mixed precision."""
    stage = Verification(trainee.model, held_out.batches.question.answer_tokens())
    stage.to(output.dtype(recipe)).float()
    metrics, calibration = held_out.metrics(held_out.answered(stage, output.generator.device))
    config = VerifierConfig.of(
        output.generator,
        recipe.reads,
        question=recipe.question,
        has_head=trainee.model.head is not None,
        calibration=calibration,
    )
    verifier = LanguageModelVerifier(str(output.folder), config, trainee.model, trainee.tokenizer, reading)
    output.write(verifier, recipe, metrics.to_json())
