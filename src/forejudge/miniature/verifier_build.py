"""The verifier's part of the build: label, caption, align, verify, as the commands of those names do it."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from transformers import AutoModelForCausalLM

from forejudge.evaluation.evaluators import Evaluator
from forejudge.files import write_text
from forejudge.generators import load_generator
from forejudge.generators.base import Generator
from forejudge.hub import local_folder
from forejudge.library_models import load_library_model
from forejudge.miniature.captioner import MiniatureCaptioner
from forejudge.miniature.cards import with_test_figures
from forejudge.miniature.recipe import Recipe, VerifierPartRecipe
from forejudge.miniature.splits import Split, sample_prompt_lines
from forejudge.progress import Report
from forejudge.shard import Shard
from forejudge.training.align import align
from forejudge.training.captions import CaptionObserver
from forejudge.training.drawing import CandidateDrawing, Observer
from forejudge.training.labels import LabelObserver
from forejudge.training.output import CARD_FILE
from forejudge.training.recipe import VerifyRecipe
from forejudge.training.row_folder import RowFolder
from forejudge.training.verify import verify
from forejudge.verifiers.reading import reading_named

Captions = Literal["new", "original"]
_LANGUAGE_MODEL = "language_model"  # how the names of all folders of language models begin


@dataclass(frozen=True)
class VerifierBuild:
    """Where it is built, and from what. Every step goes on where it was stopped.

    `folder` holds the models, `work` what is drawn and aligned; `language_model` is the folder of the one that answers.
    """

    recipe: VerifierPartRecipe
    seed: int
    folder: Path
    work: Path
    language_model: Path
    generator: Generator
    evaluator: Evaluator
    report: Report

    @classmethod
    def of(
        cls, recipe: Recipe, folder: Path, device: torch.device, evaluator: Evaluator, report: Report
    ) -> "VerifierBuild":
        """Raises CheckpointError where the generator, the language model or CLIP has not been built."""
        generator = load_generator(str(local_folder(str(folder / "generator"))), device, torch.float32)
        for part in (_LANGUAGE_MODEL, *(["clip"] if "clip" in recipe.verifier.recorded else [])):
            local_folder(str(folder / part))
        work, language_model = folder / "work", folder / _LANGUAGE_MODEL
        return cls(recipe.verifier, recipe.seed, folder, work, language_model, generator, evaluator, report)

    @property
    def language_model_parameters(self) -> int:
        """How many weights the language model has; those of its embeddings serve its output, too."""
        model: Any = load_library_model(AutoModelForCausalLM, self.language_model, "auto")
        return int(model.num_parameters())

    def run(self) -> None:
        """Draw what is trained on, and train the shipped verifier."""
        self.draw()
        self.train(self.folder / "verifier", self.recipe.verify)
        card = self.folder / "verifier" / CARD_FILE
        write_text(card, with_test_figures(card.read_text()))

    def run_baselines(self) -> None:
        """Train the verifiers that the shipped one is compared with, in the same way, on the same rows."""
        for name, reads in self.recipe.baselines.items():
            self.train(self.folder / "baselines" / name, self.recipe.verify.model_copy(update={"reads": reads}))

    def draw(self) -> None:
        """Labelled and captioned candidates of training and validation prompts, their states recorded."""
        recipe = self.recipe
        judge, caption = LabelObserver(self.evaluator), CaptionObserver(MiniatureCaptioner())
        self._draw("labels", "training", recipe.training_prompts, recipe.candidates_each, judge)
        self._draw("labels", "validation", recipe.validation_prompts, recipe.candidates_each, judge)
        captioned = recipe.captioned_prompts, recipe.captioned_candidates_each
        self._draw("captions", "training", *captioned, caption)
        self._draw("captions", "validation", captioned[0] // 10 + 1, captioned[1], caption)

    def train(self, out: Path, recipe: VerifyRecipe, captions: Captions | None = "new") -> None:
        """One verifier; aligned to what pictures show ("new"), to what they were drawn from ("original"), or not."""
        recipe = recipe.model_copy(update=self._models(recipe.reads))
        labels, validation = self._drawn("labels", "training"), self._drawn("labels", "validation")
        aligned = None if captions is None else self._aligned(recipe, captions)
        verify(recipe, self.generator, labels, validation, out, self.report, aligned)

    def _aligned(self, recipe: VerifyRecipe, captions: Captions) -> Path:
        """A connector for what the recipe reads, and how."""
        reads, size = recipe.reads, recipe.spatial_merge_size
        changes = {"reads": reads, "spatial_merge_size": size, "captions": captions, **self._models(reads)}
        other = self.language_model.name.removeprefix(_LANGUAGE_MODEL)
        out = self.work / f"aligned_{reads.replace(':', '_')}_{size}x{size}_{captions}{other}"
        align(
            self.recipe.align.model_copy(update=changes),
            self.generator,
            self._drawn("captions", "training"),
            self._drawn("captions", "validation"),
            out,
            self.report,
        )
        return out

    def _models(self, reads: str) -> dict[str, str | None]:
        tower = str(self.folder / "clip") if reads == "clip" else None
        return {"language_model": str(self.language_model), "vision_tower": tower}

    def _draw(self, kind: str, split: Split, prompts: int, candidates: int, observer: Observer) -> None:
        lines = sample_prompt_lines(prompts, split, self.seed if kind == "labels" else self.seed + 1)
        readings = [reading_named(name, self.folder / "clip") for name in self.recipe.recorded]
        drawing = CandidateDrawing(self.generator, lines, candidates, self.seed, observer, readings)
        drawing.run(RowFolder(self._drawn(kind, split)), Shard(), self.report)

    def _drawn(self, kind: str, split: Split) -> Path:
        return self.work / f"{kind}_{split}"
