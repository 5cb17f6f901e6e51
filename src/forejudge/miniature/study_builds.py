"""What the variants of a study train from: a finished build, and what a study makes beside it under work/."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from forejudge.errors import InvalidRequest
from forejudge.generators import load_generator
from forejudge.miniature.evaluator import MiniatureEvaluator
from forejudge.miniature.generator_build import build_generator
from forejudge.miniature.language_model_build import build_language_model
from forejudge.miniature.recipe import Recipe, keep_recipe
from forejudge.miniature.variants import STUDIES, OtherGenerator, Variant
from forejudge.miniature.verifier_build import VerifierBuild
from forejudge.progress import Report

_PROMPTS, _CAPTIONED_PROMPTS = 2000, 500  # of a study that draws its own rows


@dataclass(frozen=True)
class StudyBuilds:
    """The folder of a finished build, and the recipe that it was built with."""

    recipe: Recipe
    folder: Path
    device: torch.device
    report: Report

    def of(self, study: str) -> dict[str, VerifierBuild]:
        """By variant: with its generator, its language model and rows to train on. What is missing is built.

        For another generator, and for cuts that the build did not record, fewer rows are drawn anew. Raises
        CheckpointError where there is no build, InvalidRequest for a study that there is not.
        """
        variants = variants_of(study)
        build = VerifierBuild.of(self.recipe, self.folder, self.device, MiniatureEvaluator(), self.report)
        if any(variant.generator for variant in variants.values()):
            return self._of_generators(build, variants, build.work / study)
        if not (reads := self._reads(*variants.values())) <= set(build.recipe.recorded):
            build = self._with_own_rows(build, reads, build.work / study)
        return {name: self._with_language_model(build, variant) for name, variant in variants.items()}

    def _of_generators(
        self, build: VerifierBuild, variants: Mapping[str, Variant], work: Path
    ) -> dict[str, VerifierBuild]:
        """All generators first, which takes longest; then rows of each."""
        folders = {name: work / folder_name(name) for name in variants}
        builds = {
            name: self._with_generator(build, folders[name], variant.generator) for name, variant in variants.items()
        }
        return {
            name: self._with_own_rows(builds[name], self._reads(variant), folders[name])
            for name, variant in variants.items()
        }

    def _with_generator(self, build: VerifierBuild, folder: Path, other: OtherGenerator | None) -> VerifierBuild:
        if other is None:
            return build
        settings = (other.recipe, self.device, self.report, self.recipe.seed)
        built = build_generator(other.kind, folder, self.folder, *settings)
        return replace(build, generator=load_generator(str(built), self.device, torch.float32))

    def _with_own_rows(self, build: VerifierBuild, reads: set[str], work: Path) -> VerifierBuild:
        fewer = {
            "recorded": tuple(sorted(reads)),
            "training_prompts": _PROMPTS,
            "captioned_prompts": _CAPTIONED_PROMPTS,
        }
        own = replace(build, recipe=build.recipe.model_copy(update=fewer), work=work)
        own.draw()
        return own

    def _with_language_model(self, build: VerifierBuild, variant: Variant) -> VerifierBuild:
        if not variant.language_model:
            return build
        recipe = self.recipe.language_model.model_copy(update=variant.language_model)
        folder = self.folder / "work" / f"language_model_{recipe.layers}x{recipe.width}"
        keep_recipe(folder, recipe)
        if not (folder / "README.md").exists():
            checkpoint = folder.with_suffix(".checkpoint")
            build_language_model(folder, checkpoint, recipe, self.recipe.seed, self.device, self.report)
        return replace(build, language_model=folder)

    def _reads(self, *variants: Variant) -> set[str]:
        return {variant.changes.get("reads", self.recipe.verifier.verify.reads) for variant in variants}


def folder_name(variant: str) -> str:
    """A variant's name without commas and spaces."""
    return variant.replace(", ", "-").replace(" ", "-")


def variants_of(study: str) -> dict[str, Variant]:
    """Raises InvalidRequest for a study that there is not."""
    if study not in STUDIES:
        raise InvalidRequest(f"unknown study {study!r}: expected one of {', '.join(STUDIES)}")
    return STUDIES[study]
