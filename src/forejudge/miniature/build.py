"""Building the miniature, part by part. Every part goes on from where it was stopped."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderDC

from forejudge.checkpoint import load_strictly, quiet_libraries, read_config
from forejudge.errors import CheckpointError, InvalidRequest
from forejudge.evaluation.evaluators import Evaluator
from forejudge.files import write_text
from forejudge.generators.base import OPTIONS_FILE
from forejudge.generators.sana_sprint import SanaSprintOptions
from forejudge.miniature.autoencoder import autoencoder_loss, new_autoencoder
from forejudge.miniature.cards import classifier_card, clip_card, generator_card, language_model_card
from forejudge.miniature.classifier import new_classifier
from forejudge.miniature.classifier_training import classifier_loss, held_out_accuracy
from forejudge.miniature.clip import caption_tokenizer, clip_loss, held_out_retrieval, new_clip, picture_processor
from forejudge.miniature.evaluator import MiniatureEvaluator
from forejudge.miniature.generator import GeneratorLoss, GeneratorParts, assemble
from forejudge.miniature.language_model import (
    held_out_perplexity,
    language_model_loss,
    language_model_tokenizer,
    new_language_model,
)
from forejudge.miniature.recipe import Recipe
from forejudge.miniature.training_loop import TrainingSettings, train
from forejudge.miniature.verifier_build import VerifierBuild
from forejudge.miniature.world import write_world
from forejudge.progress import Report
from forejudge.provenance import provenance

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
        self._keep_recipe()
        for part in PARTS if only is None else (only,):
            getattr(self, f"_{part.replace('-', '_')}")()

    def _keep_recipe(self) -> None:
        path = self.folder / "recipe.json"
        self._work.mkdir(parents=True, exist_ok=True)
        if path.exists() and read_config(path, Recipe) != self.recipe:
            raise InvalidRequest(f"{path} holds another recipe: build in another folder")
        write_text(path, self.recipe.model_dump_json(indent=2) + "\n")

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
        torch.manual_seed(self.recipe.seed)
        parts = GeneratorParts(recipe.shallow_blocks, recipe.width, decided_after=recipe.shallow_blocks)
        shallow, first_seconds = self._train_generator("shallow generator", parts, autoencoder, recipe.shallow, seed=2)
        parts = shallow.deepened(recipe.blocks)
        deep, seconds = self._train_generator("generator", parts, autoencoder, recipe.deep, seed=3)
        folder = self.folder / "generator"
        with quiet_libraries():  # they warn that half precision is slow to run on a CPU; it is only stored so
            assemble(deep, autoencoder).to("cpu", torch.float16).save_pretrained(folder)
        options = SanaSprintOptions(complex_human_instruction=None, intermediate_timesteps=None)
        (folder / OPTIONS_FILE).write_text(options.model_dump_json(exclude_unset=True) + "\n")
        (folder / "README.md").write_text(generator_card(recipe, self._made(first_seconds + seconds)))

    def _train_generator(
        self, part: str, parts: GeneratorParts, autoencoder: AutoencoderDC, settings: TrainingSettings, seed: int
    ) -> tuple[GeneratorParts, float]:
        parts = parts.to(self.device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        loss = GeneratorLoss(parts, autoencoder, self.recipe.generator.compiled)
        loss_at_step = loss.at(settings.batch_size, self.recipe.seed + seed)
        checkpoint = self._work / f"{part.replace(' ', '_')}.checkpoint"
        return train(part, parts, loss_at_step, settings, checkpoint, self.report)

    def _trained_autoencoder(self) -> AutoencoderDC:
        folder = self._work / "autoencoder"
        if not folder.exists():
            raise CheckpointError(f"{folder} is missing: build the autoencoder first")
        autoencoder = new_autoencoder()  # from_pretrained would note the folder's path in the config
        load_strictly(autoencoder, folder / "diffusion_pytorch_model.safetensors")
        return autoencoder.to(self.device, memory_format=torch.channels_last)

    def _language_model(self) -> None:
        recipe, tokenizer = self.recipe.language_model, language_model_tokenizer()
        torch.manual_seed(self.recipe.seed)
        model = new_language_model(tokenizer, recipe.width, recipe.layers).to(self.device)
        loss = language_model_loss(model, tokenizer, recipe.settings.batch_size, self.recipe.seed + 4)
        checkpoint = self._work / "language_model.checkpoint"
        trained, seconds = train("language model", model, loss, recipe.settings, checkpoint, self.report)
        # Of the weights as they are stored.
        perplexity = held_out_perplexity(trained.half().float().eval(), tokenizer, self.recipe.seed + 5)
        folder = self.folder / "language_model"
        with quiet_libraries():
            trained.half().save_pretrained(folder)
            tokenizer.save_pretrained(folder)
        made = self._made(seconds) | {"held-out perplexity per token": round(perplexity, 3)}
        (folder / "README.md").write_text(language_model_card(recipe, made))

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
        return {"seed": self.recipe.seed, "minutes of training": round(seconds / 60, 1), **provenance(self.device)}
