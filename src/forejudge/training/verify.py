"""Stage 2: connector and language model learn from labeled candidates to answer yes or no (paper, "Training")."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from forejudge.generators.base import Generator
from forejudge.progress import ProgressCallback
from forejudge.training.config import VerifyRecipe
from forejudge.training.dataset import (
    IGNORE_INDEX,
    LabeledRows,
    RowDataset,
    TrainingData,
    state_statistics,
    training_prompt_overlap,
)
from forejudge.training.model import (
    TrainableVerifier,
    Verification,
    add_head,
    aligned_digest,
    load_aligned_verifier,
    log_odds,
    new_trainable_verifier,
    set_statistics,
)
from forejudge.training.output import RunFolder
from forejudge.training.trainer import SummedLoss, TrainingRun
from forejudge.verifiers.inputs import VerifierInput, build_verifier_input
from forejudge.verifiers.language_model import LanguageModelVerifier, LanguageModelVerifierConfig
from forejudge.verifiers.question import Question


def verify(
    recipe: VerifyRecipe,
    generator: Generator,
    data: TrainingData,
    out: Path,
    report: ProgressCallback,
    aligned: Path | None = None,
) -> None:
    """Train a verifier on labeled candidates, calibrate it on those of held-out prompts and write it to `out`.

    `data` comes from `forejudge label`; without `aligned` the connector starts from random weights. A stopped run
    continues; a finished one stays as it is. Raises InvalidRequest if `out` holds a run of another recipe.
    """
    output, inputs = RunFolder(out, generator), data.inputs("verify", aligned_digest(aligned))
    if output.finished(recipe, inputs):
        return
    stage = prepare_verification(recipe, generator, data, aligned)
    stage.run.check(out, generator.device)
    output.begin(recipe, inputs)
    if stage.run.train(out, generator.device, report):
        overlap = training_prompt_overlap(data.training, data.held_out)
        _write(recipe, stage, output, {"share_with_training_prompt": overlap})


@dataclass(frozen=True)
class PreparedVerification:
    """A run before its first step, with its models and held-out rows."""

    run: TrainingRun
    trainable: TrainableVerifier
    verifier_input: VerifierInput
    held_out: LabeledRows


def prepare_verification(
    recipe: VerifyRecipe, generator: Generator, data: TrainingData, aligned: Path | None
) -> PreparedVerification:
    """Load the models and compute the statistics; write nothing."""
    verifier_input = build_verifier_input(recipe.reads, recipe.vision_tower)
    verifier_input.to(generator.device, generator.dtype)
    if aligned:
        trainable = load_aligned_verifier(aligned, recipe, generator)
    else:
        trainable = new_trainable_verifier(recipe, verifier_input, generator)
    question = Question(recipe.question, trainable.tokenizer)
    training = LabeledRows.of(data.training, generator, verifier_input, question)
    held_out = LabeledRows.of(data.held_out, generator, verifier_input, question)
    held_out.check_pairs()
    if aligned is None:
        states = training.batches.states
        set_statistics(trainable, state_statistics(states, len(training.rows), recipe.seed, recipe.statistics_rows))
    run = TrainingRun(
        stage_name="verify",
        module=_stage_module(recipe, trainable, question, generator.device),
        recipe=recipe,
        training=_training_rows(recipe, training),
        validation=held_out.first(),
        loss=_answer_loss(recipe, training.rows.correct[: recipe.training_rows]),
        best_metric="pair_accuracy",
        metrics=lambda logprobs: _validation_metrics(held_out, logprobs),
    )
    return PreparedVerification(run, trainable, verifier_input, held_out)


def _training_rows(recipe: VerifyRecipe, training: LabeledRows) -> RowDataset:
    if not recipe.by_group:
        return training.first(recipe.training_rows)
    return training.first_groups(recipe.training_rows, recipe.hindsight, recipe.seed)


def _stage_module(
    recipe: VerifyRecipe, trainable: TrainableVerifier, question: Question, device: torch.device
) -> Verification:
    if recipe.loss.kind == "regression":
        trainable = add_head(trainable, recipe.seed)
    if recipe.lora is not None:
        trainable = trainable.with_lora(recipe.lora)
    return Verification(trainable.to_training(recipe, device).model, question.answer_token_ids())


def _answer_loss(recipe: VerifyRecipe, correct: NDArray[np.bool_]) -> SummedLoss:
    loss = recipe.loss.for_labels(correct)

    def summed_loss(outputs: Mapping[str, Tensor], labels: Tensor) -> Tensor:
        """Sum over rows (N,), or over groups (G, K) with their ranking."""
        is_candidate, logprobs = labels != IGNORE_INDEX, outputs["logprobs"]
        correct_N = labels[is_candidate].bool()
        is_value = recipe.loss.kind == "regression"
        prediction_N = logprobs[:, 0] if is_value else torch.where(correct_N, logprobs[:, 0], logprobs[:, 1])
        summed = loss(prediction_N, correct_N).sum()
        if labels.ndim == 1 or not recipe.loss.ranks:
            return summed
        scores = log_odds(logprobs)
        score_GK = torch.zeros(labels.shape, dtype=scores.dtype, device=labels.device)
        score_GK = score_GK.masked_scatter(is_candidate, scores)
        return summed + recipe.loss.ranking(score_GK, labels == 1, is_candidate).sum()

    return summed_loss


def _validation_metrics(held_out: LabeledRows, logprobs: NDArray[np.float32]) -> dict[str, float]:
    values = held_out.metrics(logprobs)[0].to_json()
    return {name: float(value) for name, value in values.items() if value is not None}


def _write(
    recipe: VerifyRecipe, prepared: PreparedVerification, output: RunFolder, extra_metrics: dict[str, float]
) -> None:
    """Calibrate and write the verifier: calibration sees the weights as stored, without mixed precision."""
    trainable, held_out = prepared.trainable.merge_adapters(), prepared.held_out
    stage = Verification(trainable.model, held_out.batches.question.answer_token_ids())
    stage.to(output.dtype(recipe)).float()
    logprobs = held_out.logprobs(stage, output.generator.device)
    metrics, calibration = held_out.metrics(logprobs)
    config = LanguageModelVerifierConfig.from_generator(
        output.generator,
        recipe.reads,
        question=recipe.question,
        spatial_merge_size=recipe.spatial_merge_size,
        has_head=trainable.model.head is not None,
        calibration=calibration,
        prior=held_out.prior(logprobs, calibration),
    )
    model, tokenizer = trainable.model, trainable.tokenizer
    verifier = LanguageModelVerifier(str(output.folder), config, model, tokenizer, prepared.verifier_input)
    output.write(verifier, recipe, metrics.to_json() | extra_metrics)
