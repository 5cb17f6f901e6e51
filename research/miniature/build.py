"""Build of the miniature, part by part; a stopped part resumes.

The verifier's part runs label, caption, align and verify as the commands of those names do.
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
from diffusers import AutoencoderDC
from PIL import Image
from transformers import AutoModelForCausalLM

from forejudge.candidates.collect import CandidateCollector
from forejudge.candidates.observers import CaptionObserver, LabelObserver, Observer
from forejudge.candidates.store import CandidateStore
from forejudge.checkpoint import quiet_libraries
from forejudge.errors import CheckpointError, InvalidRequest
from forejudge.evaluators.base import Evaluator
from forejudge.files import write_text
from forejudge.generators import load_generator
from forejudge.generators.base import Generator
from forejudge.hub import local_folder
from forejudge.library_models import load_library_model
from forejudge.miniature.captioner import MiniatureCaptioner
from forejudge.miniature.classifier import new_classifier
from forejudge.miniature.evaluator import MiniatureEvaluator
from forejudge.miniature.prompts import cases, descriptions, sample_prompt_lines
from forejudge.miniature.scenes import NOISE_SHAPE, SceneConstraints, couple, render
from forejudge.noise import Split
from forejudge.progress import ProgressCallback, Shard
from forejudge.prompts.geneval import TASKS
from forejudge.training.align import align
from forejudge.training.config import VerifyRecipe, with_changes
from forejudge.training.dataset import TrainingData
from forejudge.training.output import CARD_FILE
from forejudge.training.verify import verify
from forejudge.verifiers.inputs import InputWeights, build_verifier_input
from research.miniature.autoencoder import autoencoder_loss, new_autoencoder
from research.miniature.cards import (
    classifier_card,
    clip_card,
    generator_card,
    tiny_decoder_card,
    training_provenance,
    with_test_figures,
)
from research.miniature.classifier import classifier_loss, held_out_accuracy
from research.miniature.clip import caption_tokenizer, clip_image_processor, clip_loss, held_out_retrieval, new_clip
from research.miniature.generator import SANA_SPRINT, GeneratorTraining, load_autoencoder, save_generator
from research.miniature.language_model import build_language_model
from research.miniature.recipe import Recipe, VerifierPartRecipe, save_recipe
from research.miniature.tiny_decoder import (
    DecodedLatents,
    decoder_flops,
    kept_labels,
    new_tiny_decoder,
    peak_signal_to_noise,
    previews,
    tiny_decoder_loss,
)
from research.miniature.train import generator_for_step, train

Captions = Literal["new", "original"]
_COLUMNS = 12  # of the sheet of rendered scenes
_LANGUAGE_MODEL = "language_model"  # prefix of every language model's folder name


@dataclass(frozen=True)
class VerifierBuild:
    """Build of the verifiers; every step resumes where it was stopped.

    `folder` holds the models, `work_folder` the collected candidates and aligned connectors; `language_model` is the
    folder of the verifier's language model.
    """

    recipe: VerifierPartRecipe
    seed: int
    folder: Path
    work_folder: Path
    language_model: Path
    generator: Generator
    evaluator: Evaluator
    report: ProgressCallback

    @classmethod
    def from_recipe(
        cls, recipe: Recipe, folder: Path, device: torch.device, evaluator: Evaluator, report: ProgressCallback
    ) -> "VerifierBuild":
        """Load the generator. Raises CheckpointError where it, the language model or CLIP has not been built."""
        generator = load_generator(str(local_folder(str(folder / "generator"))), device, torch.float32)
        for part in (_LANGUAGE_MODEL, *(["clip"] if "clip" in recipe.verifier.recorded else [])):
            local_folder(str(folder / part))
        work_folder, language_model = folder / "work", folder / _LANGUAGE_MODEL
        return cls(recipe.verifier, recipe.seed, folder, work_folder, language_model, generator, evaluator, report)

    @property
    def language_model_parameters(self) -> int:
        """Number of weights of the language model; those of its embeddings serve its output, too."""
        model: Any = load_library_model(AutoModelForCausalLM, self.language_model, "auto")
        return int(model.num_parameters())

    def run(self) -> None:
        """Collect the training candidates, and train the shipped verifiers, with a language model and without."""
        self.collect_candidates()
        self.train(self.folder / "verifier", self.recipe.verify)
        self.train(self.folder / "cross_attention", self.recipe.cross_attention, captions=None)
        for folder in ("verifier", "cross_attention"):
            card = self.folder / folder / CARD_FILE
            write_text(card, with_test_figures(card.read_text(encoding="utf-8")))

    def run_baselines(self) -> None:
        """Train the verifiers that the shipped one is compared with, in the same way and on the same rows."""
        for name, reads in self.recipe.baselines.items():
            self.train(self.folder / "baselines" / name, with_changes(self.recipe.verify, reads=reads))

    def collect_candidates(self) -> None:
        """Collect labeled and captioned candidates of training and validation prompts, with their hidden states."""
        recipe = self.recipe
        label_observer, caption_observer = LabelObserver(self.evaluator), CaptionObserver(MiniatureCaptioner())
        self._collect("labels", "training", recipe.training_prompts, recipe.candidates_per_prompt, label_observer)
        self._collect("labels", "validation", recipe.validation_prompts, recipe.candidates_per_prompt, label_observer)
        captioned = recipe.captioned_prompts, recipe.captioned_candidates_per_prompt
        self._collect("captions", "training", *captioned, caption_observer)
        self._collect("captions", "validation", captioned[0] // 10 + 1, captioned[1], caption_observer)

    def train(self, out: Path, recipe: VerifyRecipe, captions: Captions | None = "new") -> None:
        """Train one verifier, its connector aligned to captions ("new"), to the prompts ("original"), or not at all."""
        recipe = with_changes(recipe, **self._model_paths(recipe.reads))
        aligned = None if captions is None else self._align(recipe, captions)
        verify(recipe, self.generator, self.data("labels"), out, self.report, aligned)

    def _align(self, recipe: VerifyRecipe, captions: Captions) -> Path:
        """Align a connector to the verifier input of the recipe."""
        reads, size = recipe.reads, recipe.spatial_merge_size
        changes = {"reads": reads, "spatial_merge_size": size, "captions": captions, **self._model_paths(reads)}
        model_suffix = self.language_model.name.removeprefix(_LANGUAGE_MODEL)
        out = self.work_folder / f"aligned_{reads.replace(':', '_')}_{size}x{size}_{captions}{model_suffix}"
        align(
            with_changes(self.recipe.align, **changes),
            self.generator,
            self.data("captions"),
            out,
            self.report,
        )
        return out

    def _model_paths(self, reads: str) -> dict[str, str | None]:
        return {
            "language_model": str(self.language_model),
            "vision_tower": str(self.folder / "clip") if reads in ("clip", "preview") else None,
            "tiny_decoder": str(self.folder / "tiny_decoder") if reads == "preview" else None,
        }

    def _collect(self, kind: str, split: Split, prompts: int, candidates: int, observer: Observer) -> None:
        lines = sample_prompt_lines(prompts, split, self.seed if kind == "labels" else self.seed + 1)
        weights = InputWeights(vision_tower=self.folder / "clip")
        verifier_inputs = [build_verifier_input(name, weights) for name in self.recipe.recorded]
        collector = CandidateCollector(self.generator, lines, candidates, self.seed, observer, verifier_inputs, split)
        collector.run(CandidateStore(self._candidate_folder(kind, split)), Shard(), self.report)

    def data(self, kind: Literal["labels", "captions"]) -> TrainingData:
        """Open the rows of both splits."""
        training, validation = self._candidate_folder(kind, "training"), self._candidate_folder(kind, "validation")
        return TrainingData.of(training, validation, self.generator)

    def _candidate_folder(self, kind: str, split: Split) -> Path:
        return self.work_folder / f"{kind}_{split}"


def write_world(folder: Path) -> None:
    """Write scenes.png, a row of scenes for each task, and test_prompts.jsonl."""
    folder.mkdir(parents=True, exist_ok=True)
    world_sheet().save(folder / "scenes.png")
    prompts = {case.description.prompt: case.description for case in cases("test")}
    lines = [description.metadata.to_line() for description in prompts.values()]
    (folder / "test_prompts.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")


def world_sheet() -> Image.Image:
    """Render scenes of every task, enlarged twice."""
    sampled = [item for task in TASKS for item in descriptions(task, "test")[:_COLUMNS]]
    noise = torch.randn(len(sampled), *NOISE_SHAPE, generator=generator_for_step(0, 0))
    scenes_N3HW = render(couple(SceneConstraints.from_descriptions(sampled), noise))
    rows = scenes_N3HW.unflatten(0, (len(TASKS), _COLUMNS)).permute(0, 3, 1, 4, 2)
    height, width = rows.shape[0] * rows.shape[1], rows.shape[2] * rows.shape[3]
    sheet = Image.fromarray((rows.reshape(height, width, 3) * 255).round().byte().numpy())
    return sheet.resize((2 * width, 2 * height), Image.Resampling.NEAREST)


PARTS = (
    "world",
    "autoencoder",
    "generator",
    "language-model",
    "clip",
    "classifier",
    "verifier",
    "tiny-decoder",
    "baselines",
)
_RETRIEVAL_CAPTIONS, _HELD_OUT_IMAGES = 200, 1000


@dataclass(frozen=True)
class Build:
    """Build of all parts by one recipe in one folder.

    The folder holds world/, and generator/, language_model/, verifier/ and cross_attention/ (which are shipped), clip/
    (the image encoder of baselines), classifier/ (a second evaluator), tiny_decoder/ (which shows previews to a
    baseline), baselines/ (verifiers with other inputs), and work/ with checkpoints, labels and captions, which nothing
    else needs.
    """

    recipe: Recipe
    folder: Path
    device: torch.device
    report: ProgressCallback
    evaluator: Evaluator = field(default_factory=MiniatureEvaluator)

    def run(self, only: str | None = None) -> None:
        """Build all parts, or one whose prerequisites exist; finished parts stay as they are.

        Raises InvalidRequest for an unknown part or a folder begun with another recipe, CheckpointError where a
        prerequisite is missing.
        """
        if only is not None and only not in PARTS:
            raise InvalidRequest(f"unknown part {only!r}: expected one of {', '.join(PARTS)}")
        # Denormal gradients make a step on a CPU three times slower. Worker threads take this over when they start.
        torch.set_flush_denormal(True)
        save_recipe(self.folder, self.recipe)
        self._work_folder.mkdir(parents=True, exist_ok=True)
        for part in PARTS if only is None else (only,):
            getattr(self, f"_{part.replace('-', '_')}")()

    @property
    def _work_folder(self) -> Path:
        return self.folder / "work"

    def _world(self) -> None:
        write_world(self.folder / "world")

    def _autoencoder(self) -> None:
        settings = self.recipe.autoencoder
        torch.manual_seed(self.recipe.seed)
        autoencoder = new_autoencoder().to(self.device, memory_format=torch.channels_last)
        loss = autoencoder_loss(autoencoder, settings.batch_size, self.recipe.seed + 1)
        checkpoint = self._work_folder / "autoencoder.checkpoint"
        trained, _ = train("autoencoder", autoencoder, loss, settings, checkpoint, self.report)
        trained.save_pretrained(self._work_folder / "autoencoder")

    def _generator(self) -> None:
        recipe, autoencoder = self.recipe.generator, self._trained_autoencoder()
        seed = self.recipe.seed
        training = GeneratorTraining(recipe, seed, autoencoder, self._work_folder, self.device, self.report)
        deep, seconds = training.run(SANA_SPRINT.new_parts)
        card = generator_card(recipe, self._training_provenance(seconds))
        save_generator(self.folder / "generator", SANA_SPRINT, deep, autoencoder, card)

    def _trained_autoencoder(self) -> AutoencoderDC:
        folder = self._work_folder / "autoencoder"
        if not folder.exists():
            raise CheckpointError(f"{folder} is missing: build the autoencoder first")
        return load_autoencoder(folder).to(self.device, memory_format=torch.channels_last)

    def _language_model(self) -> None:
        folder, checkpoint = self.folder / "language_model", self._work_folder / "language_model.checkpoint"
        seed, recipe = self.recipe.seed, self.recipe.language_model
        build_language_model(folder, checkpoint, recipe, seed, self.device, self.report)

    def _clip(self) -> None:
        recipe, tokenizer = self.recipe.clip, caption_tokenizer()
        torch.manual_seed(self.recipe.seed)
        model = new_clip(tokenizer, recipe.width, recipe.layers).to(self.device)
        loss = clip_loss(model, tokenizer, recipe.settings.batch_size, self.recipe.seed + 6)
        trained, seconds = train(
            "clip", model, loss, recipe.settings, self._work_folder / "clip.checkpoint", self.report
        )
        accuracy = held_out_retrieval(
            trained.half().float().eval(), tokenizer, _RETRIEVAL_CAPTIONS, self.recipe.seed + 7
        )
        folder = self.folder / "clip"
        with quiet_libraries():
            for part in (trained.half(), tokenizer, clip_image_processor()):
                part.save_pretrained(folder)
        training_provenance = self._training_provenance(seconds) | {
            f"own caption found among {_RETRIEVAL_CAPTIONS} held-out ones": round(accuracy, 3)
        }
        (folder / "README.md").write_text(clip_card(recipe, training_provenance), encoding="utf-8")

    def _classifier(self) -> None:
        recipe, checkpoint = self.recipe.classifier, self._work_folder / "classifier.checkpoint"
        torch.manual_seed(self.recipe.seed)
        model = new_classifier(recipe.width).to(self.device)
        loss = classifier_loss(model, recipe.settings.batch_size, self.recipe.seed + 8)
        trained, seconds = train("classifier", model, loss, recipe.settings, checkpoint, self.report)
        accuracy = held_out_accuracy(trained.half().float().eval(), _HELD_OUT_IMAGES, self.recipe.seed + 9)
        folder = self.folder / "classifier"
        with quiet_libraries():
            trained.half().save_pretrained(folder)
        training_provenance = self._training_provenance(seconds) | {
            "quadrant accuracy on degraded and ghosted scenes": round(accuracy, 3)
        }
        (folder / "README.md").write_text(classifier_card(recipe, training_provenance), encoding="utf-8")

    def _verifier(self) -> None:
        self._verifiers().run()

    def _tiny_decoder(self) -> None:
        recipe, seed, build = self.recipe.tiny_decoder, self.recipe.seed, self._verifiers()
        rows, autoencoder = build.data("labels"), load_autoencoder(self.folder / "generator" / "vae")
        autoencoder.to(self.device, memory_format=torch.channels_last)
        chosen = torch.randperm(len(rows.training), generator=generator_for_step(seed + 10, 0))[: recipe.training_rows]
        decoded = DecodedLatents.of(rows.training, chosen.tolist(), build.generator, autoencoder)
        torch.manual_seed(seed)
        model = new_tiny_decoder(recipe.width, recipe.blocks).to(self.device, memory_format=torch.channels_last)
        loss = tiny_decoder_loss(model, decoded, recipe.settings.batch_size, seed + 11)
        checkpoint = self._work_folder / "tiny_decoder.checkpoint"
        trained, seconds = train("tiny decoder", model, loss, recipe.settings, checkpoint, self.report)
        trained = trained.half().float().eval()
        held_out = range(len(rows.held_out))[: recipe.held_out_rows]
        full = DecodedLatents.of(rows.held_out, held_out, build.generator, autoencoder)
        shown = previews(trained, full)
        folder = self.folder / "tiny_decoder"
        with quiet_libraries():
            trained.half().save_pretrained(folder)
        training_provenance = self._training_provenance(seconds) | {
            f"PSNR against the full decoder on {len(held_out)} held-out candidates, dB": round(
                peak_signal_to_noise(shown, full.images_N3HW), 2
            ),
            "share of their labels that stay": round(kept_labels(shown, rows.held_out, held_out, self.evaluator), 3),
            "FLOPs of a preview": decoder_flops(trained),
            "FLOPs of the full decoder": decoder_flops(autoencoder),
        }
        write_text(folder / CARD_FILE, tiny_decoder_card(recipe, training_provenance))

    def _baselines(self) -> None:
        self._verifiers().run_baselines()

    def _verifiers(self) -> VerifierBuild:
        return VerifierBuild.from_recipe(self.recipe, self.folder, self.device, self.evaluator, self.report)

    def _training_provenance(self, seconds: float) -> dict[str, Any]:
        return training_provenance(self.recipe.seed, seconds, self.device)
