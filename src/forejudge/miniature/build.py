"""Building the miniature, part by part. Every part goes on from where it was stopped."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderDC

from forejudge.errors import CheckpointError, InvalidRequest
from forejudge.evaluation.evaluators import Evaluator
from forejudge.library_calls import quiet_libraries
from forejudge.miniature.autoencoder import autoencoder_loss, new_autoencoder
from forejudge.miniature.cards import classifier_card, clip_card, generator_card, made
from forejudge.miniature.classifier import new_classifier
from forejudge.miniature.classifier_training import classifier_loss, held_out_accuracy
from forejudge.miniature.clip import caption_tokenizer, clip_loss, held_out_retrieval, new_clip, picture_processor
from forejudge.miniature.evaluator import MiniatureEvaluator
from forejudge.miniature.generator_build import SANA_SPRINT, autoencoder_in, store_generator
from forejudge.miniature.generator_training import GeneratorTraining
from forejudge.miniature.language_model_build import build_language_model
from forejudge.miniature.recipe import Recipe, keep_recipe
from forejudge.miniature.training_loop import train
from forejudge.miniature.verifier_build import VerifierBuild
from forejudge.miniature.world import write_world
from forejudge.progress import Report

PARTS = ("world", "autoencoder", "generator", "language-model", "clip", "classifier", "verifier", "baselines")
_CAPTIONS_TO_FIND, _PICTURES_TO_READ = 200, 1000


@dataclass(frozen=True)
class Build:
    """A recipe and the folder it is built in; `report` hears of progress.

    The folder holds world/, and generator/, language_model/ and verifier/ (what is shipped), clip/ (what baselines read
    pictures with), classifier/ (a second judge), baselines/ (verifiers that read other things), and work/ with
    checkpoints, labels and captions, which nothing else needs.
    """

    recipe: Recipe
    folder: Path
    device: torch.device
    report: Report
    evaluator: Evaluator = field(default_factory=MiniatureEvaluator)

    def run(self, only: str | None = None) -> None:
        """Build all parts, or one whose forerunners are there; parts that are finished stay as they are.

        Raises InvalidRequest for an unknown part or a folder begun with another recipe, CheckpointError where a
        forerunner is missing.
        """
        if only is not None and only not in PARTS:
            raise InvalidRequest(f"unknown part {only!r}: expected one of {', '.join(PARTS)}")
        # Denormal gradients make a step on a CPU three times slower. Worker threads take this over when they start.
        torch.set_flush_denormal(True)
        keep_recipe(self.folder, self.recipe)
        self._work.mkdir(parents=True, exist_ok=True)
        for part in PARTS if only is None else (only,):
            getattr(self, f"_{part.replace('-', '_')}")()

    @property
    def _work(self) -> Path:
        return self.folder / "work"

    def _world(self) -> None:
        write_world(self.folder / "world")

    def _autoencoder(self) -> None:
        settings = self.recipe.autoencoder
        torch.manual_seed(self.recipe.seed)
        autoencoder = new_autoencoder().to(self.device, memory_format=torch.channels_last)
        loss = autoencoder_loss(autoencoder, settings.batch_size, self.recipe.seed + 1)
        checkpoint = self._work / "autoencoder.checkpoint"
        trained, _ = train("autoencoder", autoencoder, loss, settings, checkpoint, self.report)
        trained.save_pretrained(self._work / "autoencoder")

    def _generator(self) -> None:
        recipe, autoencoder = self.recipe.generator, self._trained_autoencoder()
        seed = self.recipe.seed
        training = GeneratorTraining(recipe, seed, autoencoder, self._work, self.device, self.report)
        deep, seconds = training.run(SANA_SPRINT.new_parts)
        card = generator_card(recipe, self._made(seconds))
        store_generator(self.folder / "generator", SANA_SPRINT, deep, autoencoder, card)

    def _trained_autoencoder(self) -> AutoencoderDC:
        folder = self._work / "autoencoder"
        if not folder.exists():
            raise CheckpointError(f"{folder} is missing: build the autoencoder first")
        return autoencoder_in(folder).to(self.device, memory_format=torch.channels_last)

    def _language_model(self) -> None:
        folder, checkpoint = self.folder / "language_model", self._work / "language_model.checkpoint"
        seed, recipe = self.recipe.seed, self.recipe.language_model
        build_language_model(folder, checkpoint, recipe, seed, self.device, self.report)

    def _clip(self) -> None:
        recipe, tokenizer = self.recipe.clip, caption_tokenizer()
        torch.manual_seed(self.recipe.seed)
        model = new_clip(tokenizer, recipe.width, recipe.layers).to(self.device)
        loss = clip_loss(model, tokenizer, recipe.settings.batch_size, self.recipe.seed + 6)
        trained, seconds = train("clip", model, loss, recipe.settings, self._work / "clip.checkpoint", self.report)
        found = held_out_retrieval(trained.half().float().eval(), tokenizer, _CAPTIONS_TO_FIND, self.recipe.seed + 7)
        folder = self.folder / "clip"
        with quiet_libraries():
            for part in (trained.half(), tokenizer, picture_processor()):
                part.save_pretrained(folder)
        made = self._made(seconds) | {f"own caption found among {_CAPTIONS_TO_FIND} held-out ones": round(found, 3)}
        (folder / "README.md").write_text(clip_card(recipe, made))

    def _classifier(self) -> None:
        recipe, checkpoint = self.recipe.classifier, self._work / "classifier.checkpoint"
        torch.manual_seed(self.recipe.seed)
        model = new_classifier(recipe.width).to(self.device)
        loss = classifier_loss(model, recipe.settings.batch_size, self.recipe.seed + 8)
        trained, seconds = train("classifier", model, loss, recipe.settings, checkpoint, self.report)
        found = held_out_accuracy(trained.half().float().eval(), _PICTURES_TO_READ, self.recipe.seed + 9)
        folder = self.folder / "classifier"
        with quiet_libraries():
            trained.half().save_pretrained(folder)
        made = self._made(seconds) | {"quadrants of worn and ghosted scenes read right": round(found, 3)}
        (folder / "README.md").write_text(classifier_card(recipe, made))

    def _verifier(self) -> None:
        self._verifiers().run()

    def _baselines(self) -> None:
        self._verifiers().run_baselines()

    def _verifiers(self) -> VerifierBuild:
        return VerifierBuild.of(self.recipe, self.folder, self.device, self.evaluator, self.report)

    def _made(self, seconds: float) -> dict[str, Any]:
        return made(self.recipe.seed, seconds, self.device)
