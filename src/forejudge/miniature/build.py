"""Building the miniature, part by part. Every part goes on from where it was stopped."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderDC

from forejudge.checkpoint import named_file, quiet_libraries, read_config
from forejudge.errors import CheckpointError, InvalidRequest
from forejudge.generators import load_generator
from forejudge.generators.sana_sprint import DEFAULTS_FILE, CallDefaults
from forejudge.miniature.autoencoder import autoencoder_loss, new_autoencoder
from forejudge.miniature.cards import generator_card, verifier_card
from forejudge.miniature.generator import GeneratorLoss, GeneratorParts, assemble
from forejudge.miniature.labels import LabelledSet, Labeller, label, labelling_groups
from forejudge.miniature.recipe import Recipe, VerifierTraining
from forejudge.miniature.splits import Split
from forejudge.miniature.training_loop import Progress, train
from forejudge.miniature.verifier import VerifierRecipe, train_verifier
from forejudge.miniature.world import write_world
from forejudge.provenance import provenance

PARTS = ("world", "autoencoder", "generator", "verifier")


@dataclass(frozen=True)
class Build:
    """A recipe and the folder it is built in; `report` hears of progress.

    The folder holds world/, generator/ and verifier/ (what is shipped), verifiers/CUT/ by which cuts are compared, and
    work/ with checkpoints and labels, which nothing else needs.
    """

    recipe: Recipe
    folder: Path
    device: torch.device
    report: Callable[[Progress], None]
    labeller: Labeller = label

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
            getattr(self, f"_{part}")()

    def _keep_recipe(self) -> None:
        path = self.folder / "recipe.json"
        self._work.mkdir(parents=True, exist_ok=True)
        if path.exists() and read_config(path, Recipe) != self.recipe:
            raise InvalidRequest(f"{path} holds another recipe: build in another folder")
        path.write_text(self.recipe.model_dump_json(indent=2) + "\n")

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
        recipe = self.recipe.generator
        torch.manual_seed(self.recipe.seed)
        parts = GeneratorParts(recipe.blocks, recipe.width, recipe.draft_after)
        parts = parts.to(self.device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        autoencoder = self._trained_autoencoder()
        loss = GeneratorLoss(parts, autoencoder, recipe.compiled).at(recipe.settings.batch_size, self.recipe.seed + 2)
        checkpoint = self._work / "generator.checkpoint"
        trained, seconds = train("generator", parts, loss, recipe.settings, checkpoint, self.report)
        folder = self.folder / "generator"
        with quiet_libraries():  # they warn that half precision is slow to run on a CPU; it is only stored so
            assemble(trained, autoencoder).to("cpu", torch.float16).save_pretrained(folder)
        defaults = CallDefaults(complex_human_instruction=None)
        (folder / DEFAULTS_FILE).write_text(defaults.model_dump_json() + "\n")
        (folder / "README.md").write_text(generator_card(recipe, self._made(seconds)))

    def _made(self, seconds: float) -> dict[str, Any]:
        return {"seed": self.recipe.seed, "minutes of training": round(seconds / 60, 1), **provenance(self.device)}

    def _trained_autoencoder(self) -> AutoencoderDC:
        folder = self._work / "autoencoder"
        if not folder.exists():
            raise CheckpointError(f"{folder} is missing: build the autoencoder first")
        with named_file(folder):
            autoencoder = AutoencoderDC.from_pretrained(folder)
        return autoencoder.to(self.device, memory_format=torch.channels_last)

    def _verifier(self) -> None:
        recipe = self.recipe.verifier
        self._train_verifier(recipe.shipped_cut, recipe.shipped, self.folder / "verifier")
        for cut in recipe.compared_cuts:
            self._train_verifier(cut, recipe.compared, self.folder / "verifiers" / f"{cut:02d}")

    def _train_verifier(self, cut: int, recipe: VerifierTraining, folder: Path) -> None:
        if (folder / "README.md").exists():
            return
        generator = load_generator(str(self.folder / "generator"), self.device, torch.float32)
        training, validation = self._labels("training"), self._labels("validation")
        checkpoint = self._work / f"{folder.name}.verifier_checkpoint"
        one = VerifierRecipe(cut, recipe.width, recipe.layers, recipe.settings, self.recipe.seed + 3)
        trained = train_verifier(one, generator, training, validation, checkpoint, self.report)
        trained.verifier.model.half()
        trained.verifier.save_pretrained(folder)
        made = self._made(trained.seconds) | {"AUROC on validation prompts": round(trained.auroc, 3)}
        (folder / "README.md").write_text(verifier_card(cut, generator.architecture.num_blocks, recipe, made))

    def _labels(self, split: Split) -> LabelledSet:
        recipe = self.recipe.verifier
        labelled = LabelledSet(self._work / f"labels_{split}")
        if labelled.complete:
            return labelled
        generator = load_generator(str(self.folder / "generator"), self.device, torch.float32)
        count = recipe.training_groups if split == "training" else recipe.validation_groups
        groups = labelling_groups(split, count, self.recipe.seed)
        labelled.record(generator, groups, recipe.candidates_each, recipe.cuts, self.labeller, self.report)
        return labelled
