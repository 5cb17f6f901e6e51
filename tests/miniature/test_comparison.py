"""The comparison of ways to train: verifiers that differ in just one thing, tested on the same candidates."""

import json
from pathlib import Path

import pytest
import torch
from tests.miniature.small_build import EVEN

from forejudge.miniature.comparison import BASE, VARIANTS, Comparison
from forejudge.miniature.recipe import shrunken
from forejudge.miniature.verifier_build import VerifierBuild
from forejudge.progress import report_nothing


@pytest.fixture(scope="module")
def comparison(built: Path) -> Comparison:
    build = VerifierBuild.of(shrunken(), built, torch.device("cpu"), EVEN, report_nothing)
    return Comparison(build, training_seeds=1, steps=2, test_seeds=1, per_task=1)


def test_every_variant_is_trained_and_tested(comparison: Comparison) -> None:
    figures = json.loads(json.dumps(comparison.figures()))
    assert set(figures["variants"]) == set(VARIANTS)
    assert (figures["test_cases"], figures["steps"], figures["reads"]) == (6, 2, "hidden:2")
    for variant in figures["variants"].values():
        assert len(variant["distance_closed_of_each_seed"]) == 1
        assert {"distance_closed", "pair_accuracy", "auroc", "expected_calibration_error"} <= variant.keys()


def test_variants_differ_in_what_they_are_named_for(comparison: Comparison, built: Path) -> None:
    comparison.figures()

    def kept(variant: str, file: str) -> dict[str, object]:
        path = built / "comparison" / f"{variant.replace(', ', '-').replace(' ', '-')}-2-steps-seed-0" / file
        return dict(json.loads(path.read_text()))

    shipped, data = kept(BASE, "recipe.json"), kept(BASE, "trained_on.json")
    for name in VARIANTS:
        recipe, trained_on = kept(name, "recipe.json"), kept(name, "trained_on.json")
        differs = {field for field in recipe if recipe[field] != shipped[field]}
        differs |= {field for field in data if trained_on[field] != data[field]}
        expected = {"loss"} if VARIANTS[name].changes else {"aligned"}
        assert differs == (set() if name == BASE else expected), name
