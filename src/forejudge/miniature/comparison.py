"""What alignment, captions and the loss are worth: verifiers of one recipe that differ in just that, tested alike."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from forejudge.evaluation.evaluation_folder import EvaluationFolder
from forejudge.evaluation.intervals import distance_closed_by, pair_accuracy_of, ranking_figures
from forejudge.evaluation.outcomes import Outcomes, outcomes_of
from forejudge.evaluation.run import Evaluation
from forejudge.miniature.benchmark import miniature_benchmark
from forejudge.miniature.verifier_build import Captions, VerifierBuild
from forejudge.provenance import provenance
from forejudge.shard import Shard
from forejudge.training.losses import VerifierLoss
from forejudge.training.recipe import VerifyRecipe
from forejudge.verifiers.language_model import LanguageModelVerifier

BASE = "class-weighted, new captions"
CHOSEN_FROM = 8  # the N of Best-of-N


@dataclass(frozen=True)
class Variant:
    """What is aligned to (None: no alignment), and which fields of the recipe differ."""

    captions: Captions | None = "new"
    changes: Mapping[str, Any] = field(default_factory=dict)


VARIANTS: dict[str, Variant] = {
    BASE: Variant(),
    "original captions": Variant(captions="original"),
    "without alignment": Variant(captions=None),
    "cross-entropy": Variant(changes={"loss": VerifierLoss(kind="cross-entropy")}),
    "focal": Variant(changes={"loss": VerifierLoss(kind="focal")}),
    "regression": Variant(changes={"loss": VerifierLoss(kind="regression")}),
}


@dataclass(frozen=True)
class Comparison:
    """Every variant with every training seed, `steps` of training each; the last checkpoint is taken, not the best."""

    build: VerifierBuild
    training_seeds: int
    steps: int
    test_seeds: int
    per_task: int

    def figures(self) -> dict[str, Any]:
        """Train what is not trained yet, test all on the same candidates, and say how each variant did."""
        for name, seed in self._runs():
            variant = VARIANTS[name]
            self.build.train(self._folder(name, seed), self._recipe(variant, seed), variant.captions)
        outcomes = self._outcomes()
        return {
            "provenance": provenance(self.build.generator.device),
            "reads": self.build.recipe.verify.reads,
            "steps": self.steps,
            "training_seeds": self.training_seeds,
            "test_cases": len(outcomes.prompts),
            "test_seeds": self.test_seeds,
            "generator_fingerprint": self.build.generator.fingerprint,
            "variants": {name: self._variant_figures(outcomes, name) for name in VARIANTS},
        }

    def _runs(self) -> Iterator[tuple[str, int]]:
        """Seed by seed, so that a comparison that is cut short has all variants."""
        return ((name, seed) for seed in range(self.training_seeds) for name in VARIANTS)

    def _recipe(self, variant: Variant, seed: int) -> VerifyRecipe:
        changes = {"steps": self.steps, "evaluate_every": self.steps, "seed": seed, **variant.changes}
        return self.build.recipe.verify.model_copy(update=changes)

    def _folder(self, name: str, seed: int) -> Path:
        return (
            self.build.folder
            / "comparison"
            / f"{name.replace(', ', '-').replace(' ', '-')}-{self.steps}-steps-seed-{seed}"
        )

    def _outcomes(self) -> Outcomes:
        verifiers = {
            f"{name} {seed}": LanguageModelVerifier.from_pretrained(self._folder(name, seed))
            for name, seed in self._runs()
        }
        build = self.build
        test = miniature_benchmark(self.per_task)
        evaluation = Evaluation(build.generator, verifiers, test, CHOSEN_FROM, seeds=self.test_seeds)
        folder = EvaluationFolder(build.folder / "comparison" / f"tested-{evaluation.settings.digest}")
        evaluation.run(folder, Shard(), build.report)
        return outcomes_of(folder)

    def _variant_figures(self, outcomes: Outcomes, name: str) -> dict[str, Any]:
        """Over its training seeds: intervals of the mean, and each seed's own estimate."""
        names = [f"{name} {seed}" for seed in range(self.training_seeds)]
        of_each = [ranking_figures(outcomes, one) for one in names]
        return {
            "distance_closed": distance_closed_by(outcomes, names, CHOSEN_FROM),
            "distance_closed_of_each_seed": [
                distance_closed_by(outcomes, [one], CHOSEN_FROM)["estimate"] for one in names
            ],
            "pair_accuracy": pair_accuracy_of(outcomes, names),
            "auroc": float(np.mean([ranked["auroc"] for ranked in of_each])),
            "expected_calibration_error": float(np.mean([ranked["expected_calibration_error"] for ranked in of_each])),
        }
