"""A study: verifiers that differ in one thing, trained alike and tested on the same candidates of their generator."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from forejudge.evaluation.choosers import at_random, perfect
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
from forejudge.miniature.study_builds import folder_name
from forejudge.miniature.variants import BASE, Variant
from forejudge.miniature.verifier_build import VerifierBuild
from forejudge.provenance import provenance
from forejudge.shard import Shard
from forejudge.training.recipe import VerifyRecipe
from forejudge.verifiers.language_model import LanguageModelVerifier

CHOSEN_FROM = 8  # the N of Best-of-N


@dataclass(frozen=True)
class Study:
    """Every variant with every training seed, `steps` of training each; the last checkpoint is taken, not the best.

    `builds` has what each variant trains from. What is trained lies in its folder and is shared by studies; an
    interrupted study goes on.
    """

    builds: Mapping[str, VerifierBuild]
    variants: Mapping[str, Variant]
    training_seeds: int
    steps: int
    test_seeds: int
    per_task: int

    def train(self) -> None:
        """What is not trained yet."""
        for name, seed in self._runs():
            captions = self.variants[name].captions
            self.builds[name].train(self._folder(name, seed), self._recipe(name, seed), captions)

    def figures(self) -> dict[str, Any]:
        """Train, test those of one generator on the same candidates, and say how each variant did."""
        self.train()
        outcomes = self._outcomes()
        (first, *_) = self.variants
        return {
            "provenance": provenance(self.builds[first].generator.device),
            "steps": self.steps,
            "training_seeds": self.training_seeds,
            "test_cases": len(outcomes[first].prompts),
            "test_seeds": self.test_seeds,
            "generator_fingerprint": self.builds[first].generator.fingerprint,
            "variants": {name: self._variant_figures(outcomes[name], name) for name in self.variants},
        }

    def _runs(self) -> Iterator[tuple[str, int]]:
        """Seed by seed, so that a study that is cut short has all variants."""
        return ((name, seed) for seed in range(self.training_seeds) for name in self.variants)

    def _recipe(self, name: str, seed: int) -> VerifyRecipe:
        changes = self.variants[name].changes
        fields = {"steps": self.steps, "evaluate_every": self.steps, "seed": seed, **changes}
        return self.builds[name].recipe.verify.model_copy(update=fields)

    def _folder(self, name: str, seed: int) -> Path:
        """A variant that differs in nothing is that of other studies."""
        shared = BASE if self.variants[name] == Variant() else name
        return self._studies(name) / f"{folder_name(shared)}-{self.steps}-steps-seed-{seed}"

    def _studies(self, name: str) -> Path:
        return self.builds[name].work / "studies"

    def _outcomes(self) -> dict[str, Outcomes]:
        """By variant."""
        drawn_by = {name: build.generator.fingerprint for name, build in self.builds.items()}
        alike = [[name for name in drawn_by if drawn_by[name] == one] for one in dict.fromkeys(drawn_by.values())]
        tested = {names[0]: self._tested(names) for names in alike}
        return {name: tested[names[0]] for names in alike for name in names}

    def _tested(self, names: Sequence[str]) -> Outcomes:
        """Variants of one generator on the same candidates."""
        verifiers = {
            f"{name} {seed}": LanguageModelVerifier.from_pretrained(self._folder(name, seed))
            for name, seed in self._runs()
            if name in names
        }
        build, test = self.builds[names[0]], miniature_benchmark(self.per_task)
        evaluation = Evaluation(build.generator, verifiers, test, CHOSEN_FROM, seeds=self.test_seeds)
        folder = EvaluationFolder(self._studies(names[0]) / f"tested-{evaluation.settings.digest}")
        evaluation.run(folder, Shard(), build.report)
        return outcomes_of(folder)

    def _variant_figures(self, outcomes: Outcomes, name: str) -> dict[str, Any]:
        """Over its training seeds: intervals of the mean, and each seed's own estimate."""
        names = [f"{name} {seed}" for seed in range(self.training_seeds)]
        chosen_C = chosen_by(outcomes, names, CHOSEN_FROM)
        of_each = [ranking_figures(outcomes, one) for one in names]
        return {
            "reads": self._recipe(name, 0).reads,
            "language_model_parameters": self.builds[name].language_model_parameters,
            "generator_fingerprint": self.builds[name].generator.fingerprint,
            "best_of_1": averages_of(outcomes, at_random(outcomes, 1))["micro"],
            "perfect_judge": averages_of(outcomes, perfect(outcomes, CHOSEN_FROM))["micro"],
            "best_of_8": averages_of(outcomes, chosen_C)["micro"],
            "distance_closed": distance_closed_by(outcomes, names, CHOSEN_FROM),
            "distance_closed_of_each_seed": [
                distance_closed_by(outcomes, [one], CHOSEN_FROM)["estimate"] for one in names
            ],
            "pair_accuracy": pair_accuracy_of(outcomes, names),
            "auroc": float(np.mean([ranked["auroc"] for ranked in of_each])),
            "expected_calibration_error": float(np.mean([ranked["expected_calibration_error"] for ranked in of_each])),
        }
