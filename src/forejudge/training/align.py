"""Stage 1, alignment: the connector learns to make the language model say an image's caption (paper, "Training")."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch.nn.functional as F
from torch import Tensor

from forejudge.generators.base import Generator
from forejudge.progress import ProgressCallback
from forejudge.training.config import AlignRecipe
from forejudge.training.dataset import IGNORE_INDEX, CaptionBatches, RowDataset, TrainingData, state_statistics
from forejudge.training.model import Alignment, TrainableVerifier, new_trainable_verifier, set_statistics
from forejudge.training.output import RunFolder
from forejudge.training.trainer import TrainingRun
from forejudge.verifiers.inputs import VerifierInput, build_verifier_input
from forejudge.verifiers.language_model import LanguageModelVerifier, LanguageModelVerifierConfig
from forejudge.verifiers.question import Question

_CAPTION_COLUMN = {"new": "caption", "original": "prompt"}


def align(recipe: AlignRecipe, generator: Generator, data: TrainingData, out: Path, report: ProgressCallback) -> None:
    """Train a connector on captioned candidates and write it to `out`, with the language model unchanged.

    `data` comes from `forejudge caption`. A stopped run continues; a finished one stays as it is. Raises
    InvalidRequest if `out` holds a run of another recipe.
    """
    output, inputs = RunFolder(out, generator), data.inputs("align")
    if output.finished(recipe, inputs):
        return
    stage = prepare_alignment(recipe, generator, data)
    stage.run.check(out, generator.device)
    output.begin(recipe, inputs)
    if stage.run.train(out, generator.device, report):
        config = LanguageModelVerifierConfig.from_generator(
            generator, recipe.reads, spatial_merge_size=recipe.spatial_merge_size, stage="align"
        )
        model, tokenizer = stage.trainable.model, stage.trainable.tokenizer
        output.write(LanguageModelVerifier(str(out), config, model, tokenizer, stage.verifier_input), recipe)


@dataclass(frozen=True)
class PreparedAlignment:
    """A run before its first step, with its models."""

    run: TrainingRun
    trainable: TrainableVerifier
    verifier_input: VerifierInput


def prepare_alignment(recipe: AlignRecipe, generator: Generator, data: TrainingData) -> PreparedAlignment:
    """Load the models and compute the statistics; write nothing."""
    training, held_out = data.training, data.held_out
    verifier_input = build_verifier_input(recipe.reads, recipe.input_weights)
    verifier_input.to(generator.device, generator.dtype)
    trainable = new_trainable_verifier(recipe, verifier_input, generator)
    states = training.states(generator, verifier_input)
    set_statistics(
        trainable.model.connector, state_statistics(states, len(training), recipe.seed, recipe.statistics_rows)
    )
    instruction, column = Question(recipe.instruction, trainable.tokenizer), _CAPTION_COLUMN[recipe.captions]
    held_out_states = held_out.states(generator, verifier_input)
    batches = CaptionBatches(states, instruction, training.column(column))
    held_out_batches = CaptionBatches(held_out_states, instruction, held_out.column(column))
    run = TrainingRun(
        stage_name="align",
        module=Alignment(trainable.to_training(recipe, generator.device).model),
        recipe=recipe,
        training=RowDataset(range(len(training)), batches),
        validation=RowDataset(range(len(held_out)), held_out_batches),
        loss=caption_loss,
    )
    return PreparedAlignment(run, trainable, verifier_input)


def caption_loss(outputs: Mapping[str, Tensor], labels_NL: Tensor) -> Tensor:
    """Return the cross-entropy summed over the captions' tokens."""
    logits_NLV = outputs["logits_NLV"].float()
    return F.cross_entropy(logits_NLV.flatten(0, 1), labels_NL.flatten(), ignore_index=IGNORE_INDEX, reduction="sum")
