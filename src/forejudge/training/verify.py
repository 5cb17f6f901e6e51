"""Stage 2: a verifier learns from labeled candidates to answer yes or no (paper, "Training")."""

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
from forejudge.training.model import aligned_digest, log_odds, set_statistics
from forejudge.training.output import RunFolder
from forejudge.training.stage_models import StageModel, new_stage_model, trained_stage
from forejudge.training.trainer import SummedLoss, TrainingRun
from forejudge.verifiers.inputs import build_verifier_input


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
    """A run before its first step, with its model and held-out rows."""

    run: TrainingRun
    model: StageModel
    held_out: LabeledRows


def prepare_verification(
    recipe: VerifyRecipe, generator: Generator, data: TrainingData, aligned: Path | None
) -> PreparedVerification:
    """Load the models and compute the statistics; write nothing."""
    verifier_input = build_verifier_input(recipe.reads, recipe.input_weights)
    verifier_input.to(generator.device, generator.dtype)
    model = new_stage_model(recipe, generator, verifier_input, aligned)
    training = LabeledRows.of(data.training, generator, verifier_input, model.encode)
    held_out = LabeledRows.of(data.held_out, generator, verifier_input, model.encode)
    held_out.check_pairs()
    if aligned is None:
        states = training.batches.states
        statistics = state_statistics(states, len(training.rows), recipe.seed, recipe.statistics_rows)
        set_statistics(model.connector, statistics)
    run = TrainingRun(
        stage_name="verify",
        module=model.module(),
        recipe=recipe,
        training=_training_rows(recipe, training),
        validation=held_out.first(),
        loss=_answer_loss(recipe, training.rows.correct[: recipe.training_rows]),
        best_metric="pair_accuracy",
        metrics=lambda logprobs: _validation_metrics(held_out, logprobs),
    )
    return PreparedVerification(run, model, held_out)


def _training_rows(recipe: VerifyRecipe, training: LabeledRows) -> RowDataset:
    if not recipe.by_group:
        return training.first(recipe.training_rows)
    return training.first_groups(recipe.training_rows, recipe.hindsight, recipe.seed)


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
    held_out, generator = prepared.held_out, output.generator
    verifier = prepared.model.verifier(str(output.folder))
    stage, _ = trained_stage(verifier, generator)
    stage.to(output.dtype(recipe)).float()
    logprobs = held_out.logprobs(stage, generator.device)
    metrics, calibration = held_out.metrics(logprobs)
    fitted = {"calibration": calibration, "prior": held_out.prior(logprobs, calibration)}
    verifier.config = verifier.config.model_copy(update=fitted)
    output.write(verifier, recipe, metrics.to_json() | extra_metrics)
