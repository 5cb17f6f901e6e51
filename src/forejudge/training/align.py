"""Stage 1, alignment: the connector learns to make the language model say a picture's caption (paper, "Training")."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch.nn.functional as F
from torch import Tensor

from forejudge.generators.base import Generator
from forejudge.progress import Report
from forejudge.training.config import AlignRecipe
from forejudge.training.dataset import IGNORED, CaptionBatches, Rows, TrainingData, state_statistics
from forejudge.training.model import Alignment, Trainee, new_trainee, set_statistics
from forejudge.training.output import Output
from forejudge.training.trainer import TrainingRun
from forejudge.verifiers.config import VerifierConfig
from forejudge.verifiers.inputs import Reading, reading_named
from forejudge.verifiers.language_model import LanguageModelVerifier
from forejudge.verifiers.question import Question

_COLUMN = {"new": "caption", "original": "prompt"}


def align(
    recipe: AlignRecipe, generator: Generator, captions: Path, validation: Path, out: Path, report: Report
) -> None:
    """Train a connector on captioned candidates and leave it in `out`, with the language model as it was.

    Both folders come from `forejudge caption`. A stopped run goes on; a finished one is left as it is. Raises
    InvalidRequest where `out` holds another recipe's run.
    """
    data, output = TrainingData.of(captions, validation, generator), Output(out, generator)
    if output.begin(recipe, data.digests):
        return
    stage = prepared_alignment(recipe, generator, data)
    if stage.run.train(out, generator.device, report):
        config = VerifierConfig.of(generator, recipe.reads, spatial_merge_size=recipe.spatial_merge_size)
        trainee = stage.trainee
        output.write(LanguageModelVerifier(str(out), config, trainee.model, trainee.tokenizer, stage.reading), recipe)


@dataclass(frozen=True)
class PreparedAlignment:
    """Everything that stands ready before the first step."""

    run: TrainingRun
    trainee: Trainee
    reading: Reading


def prepared_alignment(recipe: AlignRecipe, generator: Generator, data: TrainingData) -> PreparedAlignment:
    """Models loaded, statistics taken; nothing is written."""
    training, held_out = data.training, data.held_out
    reading = reading_named(recipe.reads, recipe.vision_tower)
    reading.to(generator.device, generator.dtype)
    trainee = new_trainee(recipe, reading, generator)
    states = training.states(generator, reading)
    set_statistics(trainee, state_statistics(states, len(training), recipe.seed, recipe.statistics_rows))
    instruction = Question(recipe.instruction, trainee.tokenizer)
    column = _COLUMN[recipe.captions]
    said = CaptionBatches(states, instruction, training.column(column))
    said_held_out = CaptionBatches(held_out.states(generator, reading), instruction, held_out.column(column))
    run = TrainingRun(
        part="align",
        module=Alignment(trainee.prepared(recipe, generator.device).model),
        recipe=recipe,
        training=Rows(range(len(training)), said),
        validation=Rows(range(len(held_out)), said_held_out),
        loss=caption_loss,
    )
    return PreparedAlignment(run, trainee, reading)


def caption_loss(outputs: Mapping[str, Tensor], labels_NL: Tensor) -> Tensor:
    """Cross-entropy of the captions' tokens, summed."""
    logits_NLV = outputs["logits_NLV"].float()
    return F.cross_entropy(logits_NLV.flatten(0, 1), labels_NL.flatten(), ignore_index=IGNORED, reduction="sum")
