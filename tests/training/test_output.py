"""Folder of a run: the verifier's files alone, and no paths of the training machine."""

import json
import re
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file
from torch import float16

from forejudge.errors import InvalidRequest
from forejudge.progress import Progress
from forejudge.training.config import TrainingRecipe, with_changes, with_public_names
from forejudge.training.output import RunFolder, verifier_card
from forejudge.verifiers import read_verifier_config
from forejudge.verifiers.language_model import LanguageModelVerifier
from tests.support.tiny_run import TinyRun

WEIGHTS = Path(__file__).parents[2] / "src" / "forejudge" / "miniature" / "weights"


def written(folder: Path, tiny_run: TinyRun, **changes: str) -> str:
    """The card of a verifier, as if it had been made by another recipe."""
    verifier = LanguageModelVerifier.from_pretrained(folder)
    return verifier_card(verifier, tiny_run.generator, tiny_run.verify_recipe(**changes), {"auroc": 0.75})


def test_the_card_names_recipe_metrics_commit_and_weights(
    tiny_run: TinyRun, trained_verifier: Path, aligned: Path
) -> None:
    text = (trained_verifier / "README.md").read_text()
    assert text.startswith("---\nlibrary_name: forejudge\nlicense: other\n---\n# A verifier\n")
    assert "Reads hidden:2 of `generator`" in text
    assert f"| generator weights | {tiny_run.generator.fingerprint} |" in text
    assert "| commit | " in text
    assert "| pair accuracy | 0." in text
    assert (trained_verifier / "recipe.json").read_text().split() == text.split("```json\n")[1].split("```")[0].split()
    assert "# An aligned connector" in (aligned / "README.md").read_text()


def test_licenses_are_those_of_both_models_cards(
    tiny_run: TinyRun, trained_verifier: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "spoken").mkdir()
    (tmp_path / "spoken" / "README.md").write_text("---\ntags:\n- a\nlicense: mit\nx: y\n---\nlicense: none\n")
    text = written(trained_verifier, tiny_run, language_model=str(tmp_path / "spoken"))
    assert "| language model | spoken | mit |" in text
    assert "| generator | generator | none: see where it came from |" in text
    assert "\nlicense: other\n" in text
    monkeypatch.setattr("huggingface_hub.hf_hub_download", lambda hub_id, name, **_: str(tmp_path / "spoken" / name))
    assert "| language model | owner/model | mit |" in written(trained_verifier, tiny_run, language_model="owner/model")


def test_a_missing_model_card_of_the_hub_is_accepted(tiny_run: TinyRun, trained_verifier: Path) -> None:
    text = written(trained_verifier, tiny_run, language_model="owner/model-that-is-nowhere")
    assert "| language model | owner/model-that-is-nowhere | none: see where it came from |" in text


def test_one_license_of_both_is_the_verifier_s(trained_verifier: Path, tiny_run: TinyRun, tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text("---\nlicense: mit\n---\n")
    verifier, generator = LanguageModelVerifier.from_pretrained(trained_verifier), tiny_run.generator
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
def test_the_card_shows_commands_without_absolute_paths(
    tiny_run: TinyRun, trained_verifier: Path, monkeypatch: pytest.MonkeyPatch, command: list[str], told: str
) -> None:
    monkeypatch.setattr(sys, "argv", command)
    text = written(trained_verifier, tiny_run)
    assert f"{told} |" in text
    assert "/home/me" not in text


def test_models_in_folders_are_named_by_their_last_part(
    tiny_run: TinyRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def named(**changes: str) -> TrainingRecipe:
        return with_public_names(tiny_run.verify_recipe(**changes))

    assert named().language_model == "language_model"
    assert named(vision_tower=str(tiny_run.folder)).vision_tower == tiny_run.folder.name
    assert named(language_model="owner/model").language_model == "owner/model"
    assert named().vision_tower is None
    monkeypatch.chdir(tiny_run.language_model)
    assert named(language_model=".").language_model == "language_model"


@pytest.mark.parametrize("stage", ["aligned", "trained_verifier"])
def test_no_file_contains_a_path_of_this_machine(request: pytest.FixtureRequest, tiny_run: TinyRun, stage: str) -> None:
    folder: Path = request.getfixturevalue(stage)
    files = [path for path in folder.rglob("*") if path.is_file()]
    assert len(files) > 8
    for place in (tiny_run.folder, (tiny_run.folder / "generator").resolve(), Path(__file__).parent):
        assert not [path for path in files if str(place).encode() in path.read_bytes()]


def test_a_finished_run_keeps_its_figures_and_no_checkpoints(trained_verifier: Path) -> None:
    assert {path.name for path in trained_verifier.iterdir()} == {
        "README.md", "connector.safetensors", "language_model", "metrics.json", "metrics.jsonl", "recipe.json",
        "trained_on.json", "verifier.json", "checksums.json",
    }  # fmt: skip
    checked = json.loads((trained_verifier / "checksums.json").read_text())
    assert "connector.safetensors" in checked
    assert all((trained_verifier / name).is_file() for name in checked)


def test_a_run_whose_models_have_moved_goes_on(tiny_run: TinyRun, tmp_path: Path) -> None:
    """The recipe in the folder has no paths."""
    for name in ("first", "second"):
        shutil.copytree(tiny_run.language_model, tmp_path / name / "language_model")
    stopped: list[Progress] = []

    def stop(progress: Progress) -> None:
        stopped.append(progress)
        if progress.step == 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        tiny_run.verify(tmp_path / "out", stop, language_model=str(tmp_path / "first" / "language_model"))
    left: list[Progress] = []
    tiny_run.verify(tmp_path / "out", left.append, language_model=str(tmp_path / "second" / "language_model"))
    assert [progress.step for progress in left] == [5, 6, 7, 8, 9, 10]


def test_another_model_is_another_recipe(tiny_run: TinyRun, tmp_path: Path) -> None:
    output, inputs = RunFolder(tmp_path, tiny_run.generator), tiny_run.data.inputs("verify")
    output.begin(tiny_run.verify_recipe(language_model="owner/model"), inputs)
    with pytest.raises(InvalidRequest, match="begun with language_model = owner/model, this run has language_model"):
        output.begin(tiny_run.verify_recipe(), inputs)


def test_other_data_are_another_run(tiny_run: TinyRun, trained_verifier: Path) -> None:
    """A finished run is refused, too: it was trained on other rows."""
    output, recipe = RunFolder(trained_verifier, tiny_run.generator), tiny_run.verify_recipe()
    inputs = tiny_run.data.inputs("verify")
    assert output.finished(recipe, inputs)
    with pytest.raises(InvalidRequest, match=r"begun with training = \w{16}, this run has training = other"):
        output.finished(recipe, with_changes(inputs, training="other"))


def test_weights_are_stored_as_the_recipe_says(tiny_run: TinyRun, tmp_path: Path) -> None:
    changes: dict[str, Any] = {"steps": 1, "eval_steps": 1, "save_dtype": "float16", "loss": {"kind": "regression"}}
    folder = tiny_run.verify(tmp_path / "out", **changes)
    for file in ("connector", "head", "language_model/model"):
        tensors = load_file(folder / f"{file}.safetensors")
        assert {tensor.dtype for name, tensor in tensors.items() if not name.endswith("_D")} == {float16}


def test_an_aligned_folder_says_its_stage(aligned: Path, trained_verifier: Path) -> None:
    assert read_verifier_config(aligned).model_dump()["stage"] == "align"
    assert read_verifier_config(trained_verifier).model_dump()["stage"] == "verify"


def test_no_card_that_is_shipped_names_a_removed_command_or_says_a_word_twice() -> None:
    cards = sorted(WEIGHTS.rglob("README.md"))
    assert len(cards) >= 2
    for card in cards:
        text = card.read_text(encoding="utf-8")
        assert "forejudge miniature" not in text, card
        assert not re.search(r"\b([a-z]+) \1\b", text), card
