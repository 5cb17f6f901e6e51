"""Studies of the miniature: variants of its recipe, tested on its benchmark.

`forejudge.training.study` trains and reports. This file adds what only the laboratory has: language models and
generators that a study trains itself, rows with further recorded states, and the benchmark's test cases.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch

from forejudge.candidates.collect import EvaluationCollector
from forejudge.candidates.evaluation_store import EvaluationStore
from forejudge.errors import InvalidRequest
from forejudge.evaluation.strategies import Outcomes, load_outcomes
from forejudge.evaluation.study_report import StudyReport, VariantReport
from forejudge.generators import load_generator
from forejudge.miniature.evaluator import MiniatureEvaluator, miniature_benchmark
from forejudge.progress import ProgressCallback, Shard
from forejudge.result import provenance
from forejudge.training.config import with_changes
from forejudge.training.study import MAX_N, StudyInputs, Variant, folder_name, run_name, runs, variant_report
from forejudge.verifiers.language_model import LanguageModelVerifier
from research.miniature.build import VerifierBuild
from research.miniature.generator import PIXART, SANA_SPRINT, GeneratorKind, build_generator
from research.miniature.language_model import build_language_model
from research.miniature.recipe import GeneratorRecipe, Recipe, save_recipe, small_generator_recipe

BASE = "class-weighted, new captions"  # the shipped recipe
_PROMPTS, _CAPTIONED_PROMPTS = 2000, 500  # of a study that collects its own rows


@dataclass(frozen=True)
class StudyGenerator:
    """Generator that a study trains itself (see `build_generator`)."""

    recipe: GeneratorRecipe
    kind: GeneratorKind = SANA_SPRINT


@dataclass(frozen=True)
class MiniatureVariant(Variant):
    """Variant of the shipped recipe.

    `language_model` holds changed fields of the language model's recipe, `generator` replaces the build's own.
    """

    language_model: Mapping[str, int] = field(default_factory=dict)
    generator: StudyGenerator | None = None


def _changed(*changes: str) -> MiniatureVariant:
    return MiniatureVariant(changes)


STUDIES: dict[str, dict[str, MiniatureVariant]] = {
    "layers": {f"after {cut} blocks": _changed(f"reads=hidden:{cut}") for cut in (1, 4, 8, 12, 16, 20, 24)},
    "loss": {BASE: MiniatureVariant()}
    | {kind: _changed(f"loss.kind={kind}") for kind in ("cross-entropy", "focal", "regression")},
    "captions": {
        BASE: MiniatureVariant(),
        "original captions": MiniatureVariant(captions="original"),
        "without alignment": MiniatureVariant(captions=None),
    },
    "pooling": {f"{size} x {size} states a token": _changed(f"spatial_merge_size={size}") for size in (1, 2, 4)},
    "data": {f"{count} labels": _changed(f"training_rows={count}") for count in (4000, 16000, 64000)},
    "llm": {
        "1 layer of width 64": MiniatureVariant(language_model={"layers": 1, "width": 64}),
        "3 layers of width 128": MiniatureVariant(),
        "6 layers of width 192": MiniatureVariant(language_model={"layers": 6, "width": 192}),
    },
    "generator": {  # each read after half of its blocks
        "24 blocks of width 128": MiniatureVariant(),
        "16 blocks of width 96": MiniatureVariant(
            ("reads=hidden:8",), generator=StudyGenerator(small_generator_recipe())
        ),
        "PixArt, 16 blocks of width 96": MiniatureVariant(
            ("reads=hidden:8",), generator=StudyGenerator(small_generator_recipe(), PIXART)
        ),
    },
}


def study_variants(study: str) -> dict[str, MiniatureVariant]:
    """Return the variants of a study. Raises InvalidRequest for an unknown one."""
    if study not in STUDIES:
        raise InvalidRequest(f"unknown study {study!r}: expected one of {', '.join(STUDIES)}")
    return STUDIES[study]


@dataclass(frozen=True)
class StudyBuilds:
    """Builds that the variants of a study train from: a finished build, and additions in its folder work/."""

    recipe: Recipe
    folder: Path
    device: torch.device
    report: ProgressCallback

    def for_study(self, study: str) -> dict[str, VerifierBuild]:
        """Return a build for each variant, with its generator, language model and rows; build what is missing.

        For another generator, and for cuts that the build did not record, a smaller number of rows is collected.
        Raises CheckpointError without a finished build, InvalidRequest for an unknown study.
        """
        variants = study_variants(study)
        build = VerifierBuild.from_recipe(self.recipe, self.folder, self.device, MiniatureEvaluator(), self.report)
        if any(variant.generator for variant in variants.values()):
            return self._with_generators(build, variants, build.work_folder / study)
        if not (reads := self._reads(*variants.values())) <= set(build.recipe.recorded):
            build = self._with_own_candidates(build, reads, build.work_folder / study)
        return {name: self._with_language_model(build, variant) for name, variant in variants.items()}

    def _with_generators(
        self, build: VerifierBuild, variants: Mapping[str, MiniatureVariant], work_folder: Path
    ) -> dict[str, VerifierBuild]:
        """Train all generators first, which takes longest; then collect rows of each."""
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
        changes = {"training_prompts": _PROMPTS, "captioned_prompts": _CAPTIONED_PROMPTS}
        recipe = build.recipe.model_copy(update={**changes, "recorded": tuple(sorted(reads))})
        reduced = replace(build, recipe=recipe, work_folder=work_folder)
        reduced.collect_candidates()
        return reduced

    def _with_language_model(self, build: VerifierBuild, variant: MiniatureVariant) -> VerifierBuild:
        if not variant.language_model:
            return build
        recipe = self.recipe.language_model.model_copy(update=variant.language_model)
        folder = self.folder / "work" / f"language_model_{recipe.layers}x{recipe.width}"
        save_recipe(folder, recipe)
        if not (folder / "README.md").exists():
            checkpoint = folder.with_suffix(".checkpoint")
            build_language_model(folder, checkpoint, recipe, self.recipe.seed, self.device, self.report)
        return replace(build, language_model=folder)

    def _reads(self, *variants: MiniatureVariant) -> set[str]:
        changes = (dict(change.split("=", 1) for change in variant.changes) for variant in variants)
        return {change.get("reads", self.recipe.verifier.verify.reads) for change in changes}


@dataclass(frozen=True)
class BenchmarkStudy:
    """Every variant with every training seed, tested on the benchmark with the same candidates per generator.

    `builds` holds what each variant trains from. Trained verifiers stay in its folder and are shared by studies.
    """

    builds: Mapping[str, VerifierBuild]
    variants: Mapping[str, MiniatureVariant]
    training_seeds: int
    steps: int
    test_seeds: int
    per_task: int

    def train(self) -> None:
        """Train what is not trained yet."""
        for name, seed in runs(self.variants, self.training_seeds):
            self._inputs(name).train(self.variants[name], seed, self._folder(name, seed), run_name(name, seed))

    def run(self) -> StudyReport:
        """Train and test every variant, and report how each did."""
        self.train()
        outcomes = self._outcomes()
        (first, *_) = self.variants
        generator = self.builds[first].generator
        return StudyReport(
            provenance=provenance(generator.device),
            n=MAX_N,
            steps=self.steps,
            training_seeds=self.training_seeds,
            test_cases=len(outcomes[first].prompts),
            test_seeds=self.test_seeds,
            generator_fingerprint=generator.fingerprint,
            variants={name: self._variant_report(outcomes[name], name) for name in self.variants},
        )

    def _inputs(self, name: str) -> StudyInputs:
        build = self.builds[name]
        language_model = {"language_model": str(build.language_model)}
        return StudyInputs(
            generator=build.generator,
            align=with_changes(build.recipe.align, **language_model),
            verify=with_changes(build.recipe.verify, **language_model, steps=self.steps),
            labels=build.data("labels"),
            captions=build.data("captions"),
            folder=self._studies_folder(name),
            report=build.report,
        )

    def _folder(self, name: str, seed: int) -> Path:
        """Return the run's folder; the shipped recipe, unchanged, has the same one in every study."""
        shared = BASE if self.variants[name] == MiniatureVariant() else name
        return self._studies_folder(name) / f"{folder_name(shared)}-{self.steps}-steps-seed-{seed}"

    def _studies_folder(self, name: str) -> Path:
        return self.builds[name].work_folder / "studies"

    def _outcomes(self) -> dict[str, Outcomes]:
        """Test by generator; return the outcomes by variant."""
        fingerprints = {name: build.generator.fingerprint for name, build in self.builds.items()}
        groups = [
            [name for name in fingerprints if fingerprints[name] == one] for one in dict.fromkeys(fingerprints.values())
        ]
        evaluated = {names[0]: self._evaluate(names) for names in groups}
        return {name: evaluated[names[0]] for names in groups for name in names}

    def _evaluate(self, names: Sequence[str]) -> Outcomes:
        """Test the variants of one generator on the same candidates."""
        verifiers = {
            run_name(name, seed): LanguageModelVerifier.from_pretrained(self._folder(name, seed))
            for name, seed in runs(self.variants, self.training_seeds)
            if name in names
        }
        build, test = self.builds[names[0]], miniature_benchmark(self.per_task)
        evaluation = EvaluationCollector(build.generator, verifiers, test, MAX_N, seeds=self.test_seeds)
        folder = EvaluationStore(self._studies_folder(names[0]) / f"tested-{evaluation.settings.digest}")
        evaluation.run(folder, Shard(), build.report)
        return load_outcomes(folder)

    def _variant_report(self, outcomes: Outcomes, name: str) -> VariantReport:
        build, names = self.builds[name], [run_name(name, seed) for seed in range(self.training_seeds)]
        reads, parameters = self._inputs(name).recipe(self.variants[name], 0).reads, build.language_model_parameters
        return variant_report(outcomes, names, MAX_N, reads, parameters, build.generator.fingerprint)
