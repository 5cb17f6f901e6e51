"""A generator of the miniature's world is trained shallow, then deepened and trained on; both go on where they were."""

from dataclasses import dataclass
from pathlib import Path

import torch
from diffusers import AutoencoderDC

from forejudge.miniature.generator import GeneratorLoss, GeneratorParts
from forejudge.miniature.recipe import GeneratorRecipe
from forejudge.miniature.training_loop import TrainingSettings, train
from forejudge.progress import Report


@dataclass(frozen=True)
class GeneratorTraining:
    """How it is trained, on the latents of which autoencoder, and the folder for checkpoints."""

    recipe: GeneratorRecipe
    seed: int
    autoencoder: AutoencoderDC
    work: Path
    device: torch.device
    report: Report

    def run(self) -> tuple[GeneratorParts, float]:
        """The trained parts, and the seconds that it took."""
        recipe = self.recipe
        torch.manual_seed(self.seed)
        parts = GeneratorParts(recipe.shallow_blocks, recipe.width, decided_after=recipe.shallow_blocks)
        shallow, first_seconds = self._train("shallow generator", parts, recipe.shallow, self.seed + 2)
        deep, seconds = self._train("generator", shallow.deepened(recipe.blocks), recipe.deep, self.seed + 3)
        return deep, first_seconds + seconds

    def _train(
        self, part: str, parts: GeneratorParts, settings: TrainingSettings, seed: int
    ) -> tuple[GeneratorParts, float]:
        parts = parts.to(self.device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        loss_at_step = GeneratorLoss(parts, self.autoencoder, self.recipe.compiled).at(settings.batch_size, seed)
        checkpoint = self.work / f"{part.replace(' ', '_')}.checkpoint"
        return train(part, parts, loss_at_step, settings, checkpoint, self.report)
