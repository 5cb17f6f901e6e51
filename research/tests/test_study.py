"""Studies: verifiers that differ in just one thing, tested on the same candidates."""

import json
from collections.abc import Mapping
from pathlib import Path

import pytest
import torch

from forejudge.errors import InvalidRequest
from forejudge.progress import Progress, ProgressCallback, ignore_progress
from forejudge.training.config import apply_changes
from research.miniature.build import VerifierBuild
from research.miniature.recipe import tiny_recipe
from research.studies.study import (
    BASE,
    STUDIES,
    BenchmarkStudy,
    MiniatureVariant,
    StudyBuilds,
    StudyGenerator,
    study_variants,
)
from research.tests.small_build import EVEN

CPU = torch.device("cpu")
WAYS_TO_TRAIN = STUDIES["loss"] | STUDIES["captions"] | STUDIES["pooling"]


def study(built: Path, variants: Mapping[str, MiniatureVariant]) -> BenchmarkStudy:
    build = VerifierBuild.from_recipe(tiny_recipe(), built, CPU, EVEN, ignore_progress)
    return BenchmarkStudy(dict.fromkeys(variants, build), variants, training_seeds=1, steps=2, test_seeds=1, per_task=1)


def builds(name: str, built: Path, report: ProgressCallback = ignore_progress) -> dict[str, VerifierBuild]:
    return StudyBuilds(tiny_recipe(), built, CPU, report).for_study(name)


def test_every_variant_is_trained_and_tested(built: Path) -> None:
    report = study(built, WAYS_TO_TRAIN).run()
    assert set(report.variants) == set(WAYS_TO_TRAIN)
    assert (report.test_cases, report.steps, report.n) == (6, 2, 8)
    for variant in report.variants.values():
        assert variant.reads == "hidden:2"
        assert 0 <= variant.best_of_n.estimate <= 1
        assert len(variant.oracle_gap_closed_per_seed) == 1
        assert variant.expected_calibration_error is not None


def test_variants_differ_in_what_they_are_named_for(built: Path) -> None:
    study(built, WAYS_TO_TRAIN).train()

    def kept(variant: str, file: str) -> dict[str, object]:
        folder = f"{variant.replace(', ', '-').replace(' ', '-')}-2-steps-seed-0"
        return dict(json.loads((built / "work" / "studies" / folder / file).read_text()))

    base = tiny_recipe().verifier.verify
    shipped, data = kept(BASE, "recipe.json"), kept(BASE, "trained_on.json")
    for name, variant in WAYS_TO_TRAIN.items():
        recipe, trained_on = kept(name, "recipe.json"), kept(name, "trained_on.json")
        differs = {field for field in recipe if recipe[field] != shipped[field]}
        expected = {
            field for field in recipe if getattr(apply_changes(base, variant.changes), field) != getattr(base, field)
        }
        assert differs == expected, name
        is_aligned_alike = trained_on["aligned"] == data["aligned"]
        assert is_aligned_alike == (variant.captions == "new" and "spatial_merge_size" not in expected), name


def test_fewer_labels_are_the_first_ones(built: Path) -> None:
    """Another shuffle of other rows: other weights."""
    few = study(built, {"few": MiniatureVariant(changes=("training_rows=8",))})
    few.train()
    recipe = json.loads((built / "work" / "studies" / "few-2-steps-seed-0" / "recipe.json").read_text())
    assert recipe["training_rows"] == 8


@pytest.fixture
def tiny_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    """Collect few rows for a study, evaluated so that some are right."""
    monkeypatch.setattr("research.studies.study._PROMPTS", 12)
    monkeypatch.setattr("research.studies.study._CAPTIONED_PROMPTS", 4)
    monkeypatch.setattr("research.studies.study.MiniatureEvaluator", lambda: EVEN)


@pytest.mark.usefixtures("tiny_rows")
def test_what_the_build_did_not_record_is_drawn_for_the_study(built: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(
        STUDIES, "layers", {f"after {k}": MiniatureVariant(changes=(f"reads=hidden:{k}",)) for k in (1, 4)}
    )
    report = BenchmarkStudy(builds("layers", built), study_variants("layers"), 1, 2, 1, 1).run()
    assert set(report.variants) == {"after 1", "after 4"}
    assert (built / "work" / "layers" / "labels_training").is_dir()
    assert {build.work_folder for build in builds("loss", built).values()} == {built / "work"}


def test_a_language_model_of_another_size_is_trained_once(built: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    variants = {"own": MiniatureVariant(), "larger": MiniatureVariant(language_model={"layers": 2, "width": 64})}
    monkeypatch.setitem(STUDIES, "llm", variants)
    told: list[Progress] = []
    found = builds("llm", built, told.append)
    assert {progress.part for progress in told} == {"language model"}
    reports = BenchmarkStudy(found, variants, 1, 2, 1, 1).run().variants
    parameters = [each.language_model_parameters or 0 for each in reports.values()]
    assert parameters[0] < parameters[1]
    assert len({each.generator_fingerprint for each in reports.values()}) == 1
    work_folder = built / "work"
    assert (work_folder / "studies" / "aligned" / "hidden-2-4x4-new-language_model_2x64" / "verifier.json").exists()
    assert (work_folder / "studies" / "class-weighted-new-captions-2-steps-seed-0").exists()  # the one of other studies
    card = (work_folder / "language_model_2x64" / "README.md").read_text()
    assert '"layers": 2' in card
    told.clear()
    assert builds("llm", built, told.append)["larger"].language_model == work_folder / "language_model_2x64"
    assert not told


class Stopped(Exception):
    """A kill, at a moment that a test chooses."""


@pytest.mark.usefixtures("tiny_rows")
def test_another_generator_is_trained_and_tested_on_its_own_candidates(
    built: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    smaller = tiny_recipe().generator.model_copy(update={"shallow_blocks": 1, "blocks": 2, "width": 32})
    variants = {
        "own": MiniatureVariant(),
        "smaller, of 2 blocks": MiniatureVariant(changes=("reads=hidden:1",), generator=StudyGenerator(smaller)),
    }
    monkeypatch.setitem(STUDIES, "generator", variants)

    def stop(progress: Progress) -> None:
        assert "generator" in progress.part  # what takes longest comes first
        if progress.part == "generator":
            raise Stopped

    with pytest.raises(Stopped):
        builds("generator", built, stop)
    told: list[Progress] = []
    found = builds("generator", built, told.append)
    assert "shallow generator" not in [progress.part for progress in told]
    assert builds("generator", built, told.append).keys() == found.keys()
    work_folder = built / "work" / "generator"
    assert {name: build.work_folder for name, build in found.items()} == {
        "own": work_folder / "own",
        "smaller, of 2 blocks": work_folder / "smaller-of-2-blocks",
    }
    reports = BenchmarkStudy(found, variants, 1, 2, 1, 1).run().variants
    assert [each.reads for each in reports.values()] == ["hidden:2", "hidden:1"]
    assert len({each.generator_fingerprint for each in reports.values()}) == 2
    for each in reports.values():
        assert each.best_of_1 is not None
        assert each.oracle is not None
        assert each.best_of_1.estimate <= each.oracle.estimate <= 1
    assert len(list(work_folder.glob("*/studies/tested-*"))) == 2


def test_an_unknown_study_is_refused() -> None:
    with pytest.raises(InvalidRequest, match="unknown study 'color': expected one of layers, loss"):
        study_variants("color")
