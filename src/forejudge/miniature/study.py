"""A study: verifiers that differ in one thing, trained alike and tested on the same candidates."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from forejudge.errors import InvalidRequest
from forejudge.evaluation.evaluation_folder import EvaluationFolder
from forejudge.evaluation.intervals import (
    averages_of,
    chosen_by,
    distance_closed_by,
    pair_accuracy_of,
    ranking_figures,
)
from forejudge.evaluation.outcomes import Outcomes, outcomes_of
from forejudge.evaluation.run import Evaluation
from forejudge.miniature.benchmark import miniature_benchmark
from forejudge.miniature.evaluator import MiniatureEvaluator
from forejudge.miniature.recipe import Recipe
from forejudge.miniature.variants import STUDIES, Variant
from forejudge.miniature.verifier_build import VerifierBuild
from forejudge.progress import Report
from forejudge.provenance import provenance
from forejudge.shard import Shard
from forejudge.training.recipe import VerifyRecipe
from forejudge.verifiers.language_model import LanguageModelVerifier

CHOSEN_FROM = 8  # the N of Best-of-N
_PROMPTS, _CAPTIONED_PROMPTS = 2000, 500  # of a study that draws its own rows


@dataclass(frozen=True)
class Study:
    """Every variant with every training seed, `steps` of training each; the last checkpoint is taken, not the best.

    What is trained lies in the build's folder and is shared by studies; an interrupted study goes on.
    """

    build: VerifierBuild
    variants: Mapping[str, Variant]
    training_seeds: int
    steps: int
    test_seeds: int
    per_task: int

    def train(self) -> None:
        """What is not trained yet."""
        for name, seed in self._runs():
            variant = self.variants[name]
            self.build.train(self._folder(name, seed), self._recipe(variant, seed), variant.captions)

    def figures(self) -> dict[str, Any]:
        """Train, test all on the same candidates, and say how each variant did."""
        self.train()
        outcomes = self._outcomes()
        return {
            "provenance": provenance(self.build.generator.device),
            "steps": self.steps,
            "training_seeds": self.training_seeds,
            "test_cases": len(outcomes.prompts),
            "test_seeds": self.test_seeds,
            "generator_fingerprint": self.build.generator.fingerprint,
            "variants": {name: self._variant_figures(outcomes, name) for name in self.variants},
        }

    def _runs(self) -> Iterator[tuple[str, int]]:
        """Seed by seed, so that a study that is cut short has all variants."""
        return ((name, seed) for seed in range(self.training_seeds) for name in self.variants)

    def _recipe(self, variant: Variant, seed: int) -> VerifyRecipe:
        changes = {"steps": self.steps, "evaluate_every": self.steps, "seed": seed, **variant.changes}
        return self.build.recipe.verify.model_copy(update=changes)

    def _folder(self, name: str, seed: int) -> Path:
        return self._studies / f"{name.replace(', ', '-').replace(' ', '-')}-{self.steps}-steps-seed-{seed}"

    @property
    def _studies(self) -> Path:
        return self.build.work / "studies"

    def _outcomes(self) -> Outcomes:
        verifiers = {
            f"{name} {seed}": LanguageModelVerifier.from_pretrained(self._folder(name, seed))
            for name, seed in self._runs()
        }
        build = self.build
        test = miniature_benchmark(self.per_task)
        evaluation = Evaluation(build.generator, verifiers, test, CHOSEN_FROM, seeds=self.test_seeds)
        folder = EvaluationFolder(self._studies / f"tested-{evaluation.settings.digest}")
        evaluation.run(folder, Shard(), build.report)
        return outcomes_of(folder)

    def _variant_figures(self, outcomes: Outcomes, name: str) -> dict[str, Any]:
        """Over its training seeds: intervals of the mean, and each seed's own estimate."""
        names = [f"{name} {seed}" for seed in range(self.training_seeds)]
        chosen_C = chosen_by(outcomes, names, CHOSEN_FROM)
        of_each = [ranking_figures(outcomes, one) for one in names]
        return {
            "reads": self._recipe(self.variants[name], 0).reads,
            "best_of_8": averages_of(outcomes, chosen_C)["micro"],
            "distance_closed": distance_closed_by(outcomes, names, CHOSEN_FROM),
            "distance_closed_of_each_seed": [
                distance_closed_by(outcomes, [one], CHOSEN_FROM)["estimate"] for one in names
            ],
            "pair_accuracy": pair_accuracy_of(outcomes, names),
            "auroc": float(np.mean([ranked["auroc"] for ranked in of_each])),
            "expected_calibration_error": float(np.mean([ranked["expected_calibration_error"] for ranked in of_each])),
        }


def study_build(study: str, recipe: Recipe, folder: Path, device: torch.device, report: Report) -> VerifierBuild:
    """What a study trains from: a finished build, or for cuts that it did not record fewer rows that are drawn anew.

    Raises CheckpointError where there is no build, InvalidRequest for a study that there is not.
    """
    build = VerifierBuild.of(recipe, folder, device, MiniatureEvaluator(), report)
    reads = {variant.changes.get("reads", recipe.verifier.verify.reads) for variant in variants_of(study).values()}
    if reads <= set(recipe.verifier.recorded):
        return build
    fewer = {"recorded": tuple(sorted(reads)), "training_prompts": _PROMPTS, "captioned_prompts": _CAPTIONED_PROMPTS}
    own = replace(build, recipe=recipe.verifier.model_copy(update=fewer), work=folder / "work" / study)
    own.draw()
    return own


def variants_of(study: str) -> dict[str, Variant]:
    """Raises InvalidRequest for a study that there is not."""
    if study not in STUDIES:
        raise InvalidRequest(f"unknown study {study!r}: expected one of {', '.join(STUDIES)}")
    return STUDIES[study]
