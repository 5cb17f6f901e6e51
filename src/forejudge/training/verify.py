"""Stage 2: connector and language model learn from labelled candidates to answer yes or no (paper, "Training")."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from forejudge.generators.base import Generator
from forejudge.progress import Report
from forejudge.training.config import VerifyRecipe
from forejudge.training.dataset import LabelledRows, TrainingData, share_of_training_prompts, state_statistics
from forejudge.training.model import (
    Trainee,
    Verification,
    aligned_trainee,
    digest_of,
    new_trainee,
    set_statistics,
    with_head,
)
from forejudge.training.output import Output
from forejudge.training.trainer import SummedLoss, TrainingRun
from forejudge.verifiers.config import VerifierConfig
from forejudge.verifiers.inputs import Reading, reading_named
from forejudge.verifiers.language_model import LanguageModelVerifier
from forejudge.verifiers.question import Question


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
    data, output = TrainingData.of(labels, validation, generator), Output(out, generator)
    if output.begin(recipe, {**data.digests, "aligned": digest_of(aligned)}):
        return
    stage = prepared_verification(recipe, generator, data, aligned)
    if stage.run.train(out, generator.device, report):
        share = share_of_training_prompts(data.training, data.held_out)
        _write(recipe, stage, output, {"share of these with a training prompt": share})


@dataclass(frozen=True)
class PreparedVerification:
    """Everything that stands ready before the first step."""

    run: TrainingRun
    trainee: Trainee
    reading: Reading
    held_out: LabelledRows


def prepared_verification(
    recipe: VerifyRecipe, generator: Generator, data: TrainingData, aligned: Path | None
) -> PreparedVerification:
    """Models loaded, statistics taken; nothing is written."""
    reading = reading_named(recipe.reads, recipe.vision_tower)
    reading.to(generator.device, generator.dtype)
    trainee = aligned_trainee(aligned, recipe, generator) if aligned else new_trainee(recipe, reading, generator)
    question = Question(recipe.question, trainee.tokenizer)
    training = LabelledRows.of(data.training, generator, reading, question)
    held_out = LabelledRows.of(data.held_out, generator, reading, question)
    held_out.check_pairs()
    if aligned is None:
        states = training.batches.states
        statistics = state_statistics(states, len(training.rows), recipe.seed, recipe.statistics_rows)
        set_statistics(trainee, statistics)
    run = TrainingRun(
        part="verify",
        module=_stage(recipe, trainee, question, generator.device),
        recipe=recipe,
        training=training.first(recipe.training_rows),
        validation=held_out.first(),
        loss=_answer_loss(recipe, training.rows.correct[: recipe.training_rows]),
        chosen_by="pair_accuracy",
        metrics=lambda answered: _figures(held_out, answered),
    )
    return PreparedVerification(run, trainee, reading, held_out)


def _stage(recipe: VerifyRecipe, trainee: Trainee, question: Question, device: torch.device) -> Verification:
    if recipe.loss.kind == "regression":
        trainee = with_head(trainee, recipe.seed)
    if recipe.lora is not None:
        trainee = trainee.adapted(recipe.lora)
    return Verification(trainee.prepared(recipe, device).model, question.answer_tokens())


def _answer_loss(recipe: VerifyRecipe, correct: NDArray[np.bool_]) -> SummedLoss:
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


def _write(recipe: VerifyRecipe, prepared: PreparedVerification, output: Output, shared: dict[str, float]) -> None:
    """Calibrate what will be loaded: the weights as they are stored, without the trainer's mixed precision."""
    trainee, held_out = prepared.trainee.merged(), prepared.held_out
    stage = Verification(trainee.model, held_out.batches.question.answer_tokens())
    stage.to(output.dtype(recipe)).float()
    metrics, calibration = held_out.metrics(held_out.answered(stage, output.generator.device))
    config = VerifierConfig.of(
        output.generator,
        recipe.reads,
        question=recipe.question,
        spatial_merge_size=recipe.spatial_merge_size,
        has_head=trainee.model.head is not None,
        calibration=calibration,
    )
    verifier = LanguageModelVerifier(str(output.folder), config, trainee.model, trainee.tokenizer, prepared.reading)
    output.write(verifier, recipe, metrics.to_json() | shared)
