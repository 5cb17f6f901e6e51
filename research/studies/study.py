"""A study: verifiers that differ in one thing, trained alike and tested on the same candidates of their generator."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from forejudge.candidates.collect import EvaluationCollector
from forejudge.candidates.store import EvaluationStore
from forejudge.errors import InvalidRequest
from forejudge.evaluation.build_report import (
    best_of_n_outcome,
    oracle_gap_closed_interval,
    pair_accuracy_interval,
    ranking_metrics,
)
from forejudge.evaluation.strategies import Outcomes, load_outcomes, oracle_strategy, random_strategy
from forejudge.evaluation.study_report import StudyReport, VariantReport
from forejudge.generators import load_generator
from forejudge.miniature.evaluator import MiniatureEvaluator, miniature_benchmark
from forejudge.progress import ProgressCallback, Shard
from forejudge.result import provenance
from forejudge.training.config import VerifyRecipe
from forejudge.training.losses import VerifierLoss
from forejudge.verifiers.language_model import LanguageModelVerifier
from research.miniature.build import Captions, VerifierBuild
from research.miniature.generator import PIXART, SANA_SPRINT, GeneratorKind, build_generator
from research.miniature.language_model import build_language_model
from research.miniature.recipe import GeneratorRecipe, Recipe, save_recipe, small_generator_recipe

# FOLDED: What the studies compare: verifiers of the miniature that differ from the shipped recipe in one thing.


BASE = "class-weighted, new captions"  # the shipped recipe


@dataclass(frozen=True)
class StudyGenerator:
    """A generator that a study builds, as `build_generator` does."""

    recipe: GeneratorRecipe
    kind: GeneratorKind = SANA_SPRINT


@dataclass(frozen=True)
class Variant:
    """What is aligned to (None: no alignment), and which fields of both stages' recipes differ.

    `language_model` has the fields of the language model's recipe that differ. `generator` takes the place of the
    build's own.
    """

    captions: Captions | None = "new"
    changes: Mapping[str, Any] = field(default_factory=dict)
    language_model: Mapping[str, int] = field(default_factory=dict)
    generator: StudyGenerator | None = None


def _losses() -> dict[str, Variant]:
    kinds = ("cross-entropy", "focal", "regression")
    return {BASE: Variant(), **{kind: Variant(changes={"loss": VerifierLoss(kind=kind)}) for kind in kinds}}


def _captions() -> dict[str, Variant]:
    return {
        BASE: Variant(),
        "original captions": Variant(captions="original"),
        "without alignment": Variant(captions=None),
    }


def _layers(cuts: tuple[int, ...]) -> dict[str, Variant]:
    return {f"after {cut} blocks": Variant(changes={"reads": f"hidden:{cut}"}) for cut in cuts}


def _pooling() -> dict[str, Variant]:
    return {f"{size} x {size} states a token": Variant(changes={"spatial_merge_size": size}) for size in (1, 2, 4)}


def _data(rows: tuple[int, ...]) -> dict[str, Variant]:
    return {f"{count} labels": Variant(changes={"training_rows": count}) for count in rows}


def _language_models() -> dict[str, Variant]:
    return {
        "1 layer of width 64": Variant(language_model={"layers": 1, "width": 64}),
        "3 layers of width 128": Variant(),
        "6 layers of width 192": Variant(language_model={"layers": 6, "width": 192}),
    }


def _generators() -> dict[str, Variant]:
    """Each read after half of its blocks."""
    half = {"reads": "hidden:8"}
    return {
        "24 blocks of width 128": Variant(),
        "16 blocks of width 96": Variant(changes=half, generator=StudyGenerator(small_generator_recipe())),
        "PixArt, 16 blocks of width 96": Variant(
            changes=half, generator=StudyGenerator(small_generator_recipe(), PIXART)
        ),
    }


STUDIES: dict[str, dict[str, Variant]] = {
    "layers": _layers((1, 4, 8, 12, 16, 20, 24)),
    "loss": _losses(),
    "captions": _captions(),
    "pooling": _pooling(),
    "data": _data((4000, 16000, 64000)),
    "llm": _language_models(),
    "generator": _generators(),
}


# FOLDED: What the variants of a study train from: a finished build, and what a study makes beside it under work/.


_PROMPTS, _CAPTIONED_PROMPTS = 2000, 500  # of a study that draws its own rows


@dataclass(frozen=True)
class StudyBuilds:
    """The folder of a finished build, and the recipe that it was built with."""

    recipe: Recipe
    folder: Path
    device: torch.device
    report: ProgressCallback

    def for_study(self, study: str) -> dict[str, VerifierBuild]:
        """By variant: with its generator, its language model and rows to train on. What is missing is built.

        For another generator, and for cuts that the build did not record, fewer rows are drawn anew. Raises
        CheckpointError where there is no build, InvalidRequest for a study that there is not.
        """
        variants = study_variants(study)
        build = VerifierBuild.from_recipe(self.recipe, self.folder, self.device, MiniatureEvaluator(), self.report)
        if any(variant.generator for variant in variants.values()):
            return self._with_generators(build, variants, build.work_folder / study)
        if not (reads := self._reads(*variants.values())) <= set(build.recipe.recorded):
            build = self._with_own_candidates(build, reads, build.work_folder / study)
        return {name: self._with_language_model(build, variant) for name, variant in variants.items()}

    def _with_generators(
        self, build: VerifierBuild, variants: Mapping[str, Variant], work_folder: Path
    ) -> dict[str, VerifierBuild]:
        """All generators first, which takes longest; then rows of each."""
        folders = {name: work_folder / folder_name(name) for name in variants}
        builds = {
            name: self._with_generator(build, folders[name], variant.generator) for name, variant in variants.items()
        }
        return {
            name: self._with_own_candidates(builds[name], self._reads(variant), folders[name])
            for name, variant in variants.items()
        }

    def _with_generator(self, build: VerifierBuild, folder: Path, other: StudyGenerator | None) -> VerifierBuild:
        if other is None:
            return build
        settings = (other.recipe, self.device, self.report, self.recipe.seed)
        built = build_generator(other.kind, folder, self.folder, *settings)
        return replace(build, generator=load_generator(str(built), self.device, torch.float32))

    def _with_own_candidates(self, build: VerifierBuild, reads: set[str], work_folder: Path) -> VerifierBuild:
        overrides = {
            "recorded": tuple(sorted(reads)),
            "training_prompts": _PROMPTS,
            "captioned_prompts": _CAPTIONED_PROMPTS,
        }
        reduced = replace(build, recipe=build.recipe.model_copy(update=overrides), work_folder=work_folder)
        reduced.collect_candidates()
        return reduced

    def _with_language_model(self, build: VerifierBuild, variant: Variant) -> VerifierBuild:
        if not variant.language_model:
            return build
        recipe = self.recipe.language_model.model_copy(update=variant.language_model)
        folder = self.folder / "work" / f"language_model_{recipe.layers}x{recipe.width}"
        save_recipe(folder, recipe)
        if not (folder / "README.md").exists():
            checkpoint = folder.with_suffix(".checkpoint")
            build_language_model(folder, checkpoint, recipe, self.recipe.seed, self.device, self.report)
        return replace(build, language_model=folder)

    def _reads(self, *variants: Variant) -> set[str]:
        return {variant.changes.get("reads", self.recipe.verifier.verify.reads) for variant in variants}


def folder_name(variant: str) -> str:
    """A variant's name without commas and spaces."""
    return variant.replace(", ", "-").replace(" ", "-")


def study_variants(study: str) -> dict[str, Variant]:
    """Raises InvalidRequest for a study that there is not."""
    if study not in STUDIES:
        raise InvalidRequest(f"unknown study {study!r}: expected one of {', '.join(STUDIES)}")
    return STUDIES[study]


NUM_CANDIDATES = 8  # the N of Best-of-N


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

    def report(self) -> StudyReport:
        """Train every variant, test those of one generator on the same candidates, and report how each did."""
        self.train()
        outcomes = self._outcomes()
        (first, *_) = self.variants
        return StudyReport(
            provenance=provenance(self.builds[first].generator.device),
            n=NUM_CANDIDATES,
            steps=self.steps,
            training_seeds=self.training_seeds,
            test_cases=len(outcomes[first].prompts),
            test_seeds=self.test_seeds,
            generator_fingerprint=self.builds[first].generator.fingerprint,
            variants={name: self._variant_report(outcomes[name], name) for name in self.variants},
        )

    def _runs(self) -> Iterator[tuple[str, int]]:
        """Seed by seed, so that a study that is cut short has all variants."""
        return ((name, seed) for seed in range(self.training_seeds) for name in self.variants)

    def _recipe(self, name: str, seed: int) -> VerifyRecipe:
        changes = self.variants[name].changes
        fields = {"steps": self.steps, "eval_steps": self.steps, "seed": seed, **changes}
        return self.builds[name].recipe.verify.model_copy(update=fields)

    def _folder(self, name: str, seed: int) -> Path:
        """A variant that differs in nothing is that of other studies."""
        shared = BASE if self.variants[name] == Variant() else name
        return self._studies_folder(name) / f"{folder_name(shared)}-{self.steps}-steps-seed-{seed}"

    def _studies_folder(self, name: str) -> Path:
        return self.builds[name].work_folder / "studies"

    def _outcomes(self) -> dict[str, Outcomes]:
        """By variant."""
        fingerprints = {name: build.generator.fingerprint for name, build in self.builds.items()}
        groups = [
            [name for name in fingerprints if fingerprints[name] == one] for one in dict.fromkeys(fingerprints.values())
        ]
        evaluated = {names[0]: self._evaluate(names) for names in groups}
        return {name: evaluated[names[0]] for names in groups for name in names}

    def _evaluate(self, names: Sequence[str]) -> Outcomes:
        """Variants of one generator on the same candidates."""
        verifiers = {
            f"{name} {seed}": LanguageModelVerifier.from_pretrained(self._folder(name, seed))
            for name, seed in self._runs()
            if name in names
        }
        build, test = self.builds[names[0]], miniature_benchmark(self.per_task)
        evaluation = EvaluationCollector(build.generator, verifiers, test, NUM_CANDIDATES, seeds=self.test_seeds)
        folder = EvaluationStore(self._studies_folder(names[0]) / f"tested-{evaluation.settings.digest}")
        evaluation.run(folder, Shard(), build.report)
        return load_outcomes(folder)

    def _variant_report(self, outcomes: Outcomes, name: str) -> VariantReport:
        """Average a variant over its training seeds, with each seed's own oracle gap closed."""
        names = [f"{name} {seed}" for seed in range(self.training_seeds)]
        per_seed = [ranking_metrics(outcomes, one) for one in names]
        calibration = [ranked.expected_calibration_error for ranked in per_seed]
        return VariantReport(
            reads=self._recipe(name, 0).reads,
            language_model_parameters=self.builds[name].language_model_parameters,
            generator_fingerprint=self.builds[name].generator.fingerprint,
            best_of_1=outcomes.averages(random_strategy(outcomes, 1)).micro,
            oracle=outcomes.averages(oracle_strategy(outcomes, NUM_CANDIDATES)).micro,
            best_of_n=outcomes.averages(best_of_n_outcome(outcomes, names, NUM_CANDIDATES)).micro,
            oracle_gap_closed=oracle_gap_closed_interval(outcomes, names, NUM_CANDIDATES),
            oracle_gap_closed_per_seed=[
                oracle_gap_closed_interval(outcomes, [one], NUM_CANDIDATES).estimate for one in names
            ],
            pair_accuracy=pair_accuracy_interval(outcomes, names),
            auroc=float(np.mean([ranked.auroc for ranked in per_seed])),
            expected_calibration_error=float(np.mean([error for error in calibration if error is not None])),
        )
