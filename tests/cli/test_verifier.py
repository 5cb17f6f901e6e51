"""`forejudge verifier`: show a folder, import from the published layout, export to it."""

import json
from pathlib import Path

import pytest
from safetensors.torch import load_file

from forejudge.verifiers.language_model import LanguageModelVerifierConfig
from tests.support.command import CommandLine, refusal
from tests.support.folders import copy_folder
from tests.support.official import OFFICIAL, RECORDED


def test_a_trained_verifier_is_described(forejudge: CommandLine, trained_verifier: Path) -> None:
    outcome = forejudge("verifier", "show", trained_verifier)
    assert outcome.status == 0, outcome
    config = LanguageModelVerifierConfig.model_validate_json((trained_verifier / "verifier.json").read_text())
    assert config.calibration is not None
    figures = json.loads((trained_verifier / "metrics.json").read_text())
    said = " ".join(outcome.out.split())
    for expected in (
        "reads hidden:2",
        "generator's num blocks 4",
        f"generator's weights {config.generator_fingerprint}",
        f"temperature {config.calibration.temperature:.4g}, bias {config.calibration.bias:.4g}",
        f"auroc {figures['auroc']:.4g}",
        "count 64",
    ):
        assert expected in said
    assert "README.md" in outcome.out


def test_an_undefined_metric_is_no_number(forejudge: CommandLine, trained_verifier: Path, tmp_path: Path) -> None:
    (tmp_path / "verifier.json").write_text((trained_verifier / "verifier.json").read_text())
    (tmp_path / "metrics.json").write_text('{"auroc": null}')
    assert "auroc undefined" in " ".join(forejudge("verifier", "show", tmp_path).out.split())


def test_an_aligned_connector_has_no_metrics(forejudge: CommandLine, aligned: Path) -> None:
    outcome = forejudge("verifier", "show", aligned)
    assert outcome.status == 0, outcome
    assert "calibration none" in " ".join(outcome.out.split())
    assert "auroc" not in outcome.out


def test_a_folder_without_a_verifier_is_named(forejudge: CommandLine) -> None:
    assert "nowhere/verifier.json is missing" in refusal(forejudge("verifier", "show", "nowhere"), 1)


def imported(forejudge: CommandLine, out: Path) -> str:
    """Import the recorded verifier and return the output."""
    mean, variance = RECORDED.statistics("channel", "bf16")
    generator = OFFICIAL / "sana-sprint-tiny"
    named = ("--statistics", mean, variance, "--generator", generator)
    outcome = forejudge("verifier", "import", OFFICIAL / "vhs-tiny-96", out, *named)
    assert outcome.status == 0, outcome
    return outcome.out


def test_a_published_verifier_is_imported_step_by_step(forejudge: CommandLine, tmp_path: Path) -> None:
    said = imported(forejudge, tmp_path / "verifier")
    for expected in (
        "reads hidden:8, from block_7",
        "on which weights of it the verifier was trained is unknown",
        "statistics of each channel in bfloat16: block_7_mean_bf16.pt and block_7_variance_bf16.pt",
        f"written to {tmp_path / 'verifier'}",
    ):
        assert expected in said
    assert "[UNK]" not in said
    shown = " ".join(forejudge("verifier", "show", tmp_path / "verifier").out.split())
    assert "generator's weights unknown" in shown


def test_clip_is_imported_with_another_tower_and_a_resized_vocabulary(forejudge: CommandLine, tmp_path: Path) -> None:
    tower = OFFICIAL / "openai" / "clip-tiny-vision"
    named = ("--vision-tower", tower, "--generator", OFFICIAL / "sana-sprint-tiny")
    outcome = forejudge("verifier", "import", OFFICIAL / "vhs-tiny-clip", tmp_path / "verifier", *named)
    assert outcome.status == 0, outcome
    assert f"reads clip, from the vision tower {tower}" in outcome.out
    assert "[UNK] is added and the vocabulary goes from 1152 to 960 rows" in outcome.out
    assert "vision tower weights inside the checkpoint are ignored" in outcome.out


def test_an_imported_verifier_is_exported_again(forejudge: CommandLine, tmp_path: Path) -> None:
    imported(forejudge, tmp_path / "verifier")
    outcome = forejudge("verifier", "export", tmp_path / "verifier", tmp_path / "published")
    assert outcome.status == 0, outcome
    names = load_file(tmp_path / "published" / "model.safetensors").keys()
    assert names == load_file(OFFICIAL / "vhs-tiny-96" / "model.safetensors").keys()


def test_a_refused_import_leaves_nothing(forejudge: CommandLine, tmp_path: Path) -> None:
    line = refusal(forejudge("verifier", "import", OFFICIAL / "vhs-tiny-96", tmp_path / "verifier"), 1)
    assert "--statistics MEAN VARIANCE" in line
    assert not list(tmp_path.iterdir())
    (tmp_path / "verifier").mkdir()
    (tmp_path / "verifier" / "kept").touch()
    line = refusal(forejudge("verifier", "import", OFFICIAL / "vhs-tiny-96", tmp_path / "verifier"), 2)
    assert "exists already" in line


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b'{"auroc": 0.9',
        b"null",
        b"{}",
        b"[0.9]",
        b"3",
        b'{"\xe9": 1}',
        b'{"auroc": "0.9"}',
        b'{"auroc": NaN}',
        b'{"auroc": 1e300}',
        b'{"auroc": -1.9}',
        b'{"auroc": 0.9, "added_later": "x"}',
    ],
)
def test_damaged_metrics_are_named(forejudge: CommandLine, tiny_verifier: Path, tmp_path: Path, content: bytes) -> None:
    folder = copy_folder(tiny_verifier, tmp_path / "verifier")
    (folder / "metrics.json").write_bytes(content)
    said = refusal(forejudge("verifier", "show", folder), 1)
    assert "metrics.json: " in said
    assert said.endswith("; delete the file, the verifier works without it\n")
