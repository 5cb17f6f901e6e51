"""`forejudge verifier`: what a folder holds, in words."""

import json
from pathlib import Path

from tests.cli.command import CommandLine, refusal

from forejudge.verifiers.language_model import VerifierConfig


def test_a_trained_verifier_is_described(forejudge: CommandLine, verified: Path) -> None:
    outcome = forejudge("verifier", "show", verified)
    assert outcome.status == 0, outcome
    config = VerifierConfig.model_validate_json((verified / "verifier.json").read_text())
    assert config.calibration is not None
    figures = json.loads((verified / "metrics.json").read_text())
    said = " ".join(outcome.out.split())
    for told in (
        "reads hidden:2",
        "generator's num blocks 4",
        f"generator's weights {config.generator_fingerprint}",
        f"temperature {config.calibration.temperature:.4g}, bias {config.calibration.bias:.4g}",
        f"auroc {figures['auroc']:.4g}",
        "count 64",
    ):
        assert told in said
    assert "README.md" in outcome.out


def test_an_undefined_figure_is_no_number(forejudge: CommandLine, verified: Path, tmp_path: Path) -> None:
    (tmp_path / "verifier.json").write_text((verified / "verifier.json").read_text())
    (tmp_path / "metrics.json").write_text('{"auroc": null}')
    assert "auroc undefined" in " ".join(forejudge("verifier", "show", tmp_path).out.split())


def test_an_aligned_connector_has_no_figures(forejudge: CommandLine, aligned: Path) -> None:
    outcome = forejudge("verifier", "show", aligned)
    assert outcome.status == 0, outcome
    assert "calibration none" in " ".join(outcome.out.split())
    assert "auroc" not in outcome.out


def test_a_folder_that_is_no_verifier_is_named(forejudge: CommandLine) -> None:
    assert "nowhere/verifier.json is missing" in refusal(forejudge("verifier", "show", "nowhere"), 1)
