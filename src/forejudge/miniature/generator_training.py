"""A generator of the miniature's world is trained shallow, then deepened and trained on; both go on where they were."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import torch
from diffusers import AutoencoderDC

from forejudge.miniature.one_step import GeneratorLoss, OneStepParts
from forejudge.miniature.recipe import GeneratorRecipe
from forejudge.miniature.training_loop import TrainingSettings, train
from forejudge.progress import Report

Parts = TypeVar("Parts", bound=OneStepParts)


@dataclass(frozen=True)
class GeneratorTraining:
    """How it is trained, on the latents of which autoencoder, and the folder for checkpoints."""

    recipe: GeneratorRecipe
    seed: int
    autoencoder: AutoencoderDC
    work: Path
    device: torch.device
    report: Report

    def run(self, new_parts: Callable[[int, int, int], Parts]) -> tuple[Parts, float]:
        """Parts made from blocks, width and the blocks that decide; trained, and the seconds that it took."""
        recipe = self.recipe
        torch.manual_seed(self.seed)
        parts = new_parts(recipe.shallow_blocks, recipe.width, recipe.shallow_blocks)
        shallow, first_seconds = self._train("shallow generator", parts, recipe.shallow, self.seed + 2)
        deep, seconds = self._train("generator", shallow.deepened(recipe.blocks), recipe.deep, self.seed + 3)
        return deep, first_seconds + seconds

    def _train(self, part: str, parts: Parts, settings: TrainingSettings, seed: int) -> tuple[Parts, float]:
        parts = parts.to(self.device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        loss_at_step = GeneratorLoss(parts, self.autoencoder, self.recipe.compiled).at(settings.batch_size, seed)
        checkpoint = self.work / f"{part.replace(' ', '_')}.checkpoint"
        return train(part, parts, loss_at_step, settings, checkpoint, self.report)
