"""What a trained verifier's card says, and what it keeps to itself."""

import sys
from pathlib import Path

import pytest
from tests.training.tiny_run import TinyRun

from forejudge.training.card import verifier_card
from forejudge.training.recipe import TrainingRecipe, published
from forejudge.verifiers.language_model import LanguageModelVerifier


def written(folder: Path, tiny_run: TinyRun, **changes: str) -> str:
    """The card of a verifier, as if it had been made by another recipe."""
    verifier = LanguageModelVerifier.from_pretrained(folder)
    return verifier_card(verifier, tiny_run.generator, tiny_run.verify_recipe(**changes), {"auroc": 0.75})


def test_it_names_recipe_figures_commit_and_weights(tiny_run: TinyRun, verified: Path, aligned: Path) -> None:
    text = (verified / "README.md").read_text()
    assert text.startswith("---\nlibrary_name: forejudge\nlicense: other\n---\n# A verifier\n")
    assert "Reads hidden:2 of generator" in text
    assert f"| generator weights | {tiny_run.generator.fingerprint} |" in text
    assert "| commit | " in text
    assert "| pair accuracy | 0." in text
    assert (verified / "recipe.json").read_text().split() == text.split("```json\n")[1].split("```")[0].split()
    assert "# An aligned connector" in (aligned / "README.md").read_text()


def test_licences_are_those_of_both_models_cards(
    tiny_run: TinyRun, verified: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "spoken").mkdir()
    (tmp_path / "spoken" / "README.md").write_text("---\ntags:\n- a\nlicense: mit\nx: y\n---\nlicense: none\n")
    text = written(verified, tiny_run, language_model=str(tmp_path / "spoken"))
    assert "| language model spoken | mit |" in text
    assert "| generator generator | none: see where it came from |" in text
    assert "\nlicense: other\n" in text
    monkeypatch.setattr("huggingface_hub.hf_hub_download", lambda hub_id, name, **_: str(tmp_path / "spoken" / name))
    assert "| language model owner/model | mit |" in written(verified, tiny_run, language_model="owner/model")


def test_a_card_of_the_hub_that_cannot_be_had_is_no_obstacle(tiny_run: TinyRun, verified: Path) -> None:
    text = written(verified, tiny_run, language_model="owner/model-that-is-nowhere")
    assert "| language model owner/model-that-is-nowhere | none: see where it came from |" in text


def test_one_licence_of_both_is_the_verifier_s(verified: Path, tiny_run: TinyRun, tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text("---\nlicense: mit\n---\n")
    verifier, generator = LanguageModelVerifier.from_pretrained(verified), tiny_run.generator
    generator.name = str(tmp_path)
    text = verifier_card(verifier, generator, tiny_run.verify_recipe(language_model=str(tmp_path)), None)
    assert text.startswith("---\nlibrary_name: forejudge\nlicense: mit\n---\n")


@pytest.mark.parametrize(
    ("command", "told"),
    [
        (["/home/me/bin/forejudge", "train", "--labels", "/home/me/labels"], "forejudge train --labels labels"),
        (["forejudge", "--set", "language_model=/home/me/model/", "--out=/mnt/out"], "language_model=model --out=out"),
        (["forejudge", "--set", "language_model=owner/model", "--out", "runs/out"], "owner/model --out runs/out"),
    ],
)
def test_commands_are_told_without_places(
    tiny_run: TinyRun, verified: Path, monkeypatch: pytest.MonkeyPatch, command: list[str], told: str
) -> None:
    monkeypatch.setattr(sys, "argv", command)
    text = written(verified, tiny_run)
    assert f"{told} |" in text
    assert "/home/me" not in text


def test_models_in_folders_are_named_by_their_last_part(
    tiny_run: TinyRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def named(**changes: str) -> TrainingRecipe:
        return published(tiny_run.verify_recipe(**changes))

    assert named().language_model == "language_model"
    assert named(vision_tower=str(tiny_run.folder)).vision_tower == tiny_run.folder.name
    assert named(language_model="owner/model").language_model == "owner/model"
    assert named().vision_tower is None
    monkeypatch.chdir(tiny_run.language_model)
    assert named(language_model=".").language_model == "language_model"
