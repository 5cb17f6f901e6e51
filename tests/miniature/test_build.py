"""The whole build on a shrunken recipe: deterministic, and not shaken by a kill."""

import hashlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from forejudge.miniature.labels import Group, Labelled, label

from forejudge import BestOfN
from forejudge.errors import CheckpointError, ForejudgeError, InvalidRequest
from forejudge.miniature.build import Build
from forejudge.miniature.recipe import Recipe, shrunken
from forejudge.types import Candidates


def even_seeds_are_right(group: Group, candidates: Candidates) -> list[Labelled]:
    """Labels that an untrained generator can earn, too."""
    return [
        Labelled(row.prompt, row.task, row.image_index, row.index, row.seed, row.seed % 2 == 0, row.reason)
        for row in label(group, candidates)
    ]


def build(folder: Path, recipe: Recipe | None = None) -> Build:
    return Build(recipe or shrunken(), folder, torch.device("cpu"), lambda _: None, even_seeds_are_right)


def hashes(folder: Path) -> dict[str, str]:
    """The weights that would be shipped."""
    files = sorted(folder.glob("generator/**/*.safetensors")) + sorted(folder.glob("verifier/**/*.safetensors"))
    return {str(file.relative_to(folder)): hashlib.sha256(file.read_bytes()).hexdigest() for file in files}


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("built")
    build(folder).run()
    return folder


def test_a_build_can_be_used(built: Path) -> None:
    search = BestOfN.from_pretrained(str(built / "generator"), str(built / "verifier"), device="cpu")
    result = search("a photo of a star", n=2)
    assert result.image.size == (64, 64)
    assert result.record.settings.warnings == ()
    assert result.winner.probability is not None


def test_cards_tell_how_the_weights_were_made(built: Path) -> None:
    for part in ("generator", "verifier"):
        card = (built / part / "README.md").read_text()
        assert "| commit |" in card
        assert "| device |" in card
        assert '"steps"' in card


def test_weights_are_stored_in_half_precision(built: Path) -> None:
    from safetensors.torch import load_file

    tensors = load_file(built / "generator" / "transformer" / "diffusion_pytorch_model.safetensors")
    assert {tensor.dtype for tensor in tensors.values()} == {torch.float16}


def test_a_killed_build_ends_in_the_same_weights(built: Path, tmp_path: Path) -> None:
    """Killed whenever it has just written something new, until it is done."""
    program = (
        "import sys, torch; from pathlib import Path; sys.path.insert(0, sys.argv[2]);"
        "from tests.miniature.test_build import build; build(Path(sys.argv[1])).run()"
    )
    root = str(Path(__file__).parents[2])
    kills = 0
    for landmark in ("work/autoencoder.checkpoint", "work/generator.checkpoint", "work/labels_training/rows.jsonl"):
        process = subprocess.Popen([sys.executable, "-c", program, str(tmp_path), root])
        while process.poll() is None and not (tmp_path / landmark).exists():
            time.sleep(0.02)
        if process.poll() is None:
            os.kill(process.pid, signal.SIGKILL)
            kills += 1
        process.wait()
    build(tmp_path).run()
    assert kills == 3
    assert hashes(tmp_path) == hashes(built)


def test_a_finished_part_is_not_trained_again(built: Path) -> None:
    before = hashes(built)
    reports: list[object] = []
    Build(shrunken(), built, torch.device("cpu"), reports.append, even_seeds_are_right).run("generator")
    assert reports == []
    assert hashes(built) == before


def test_another_recipe_in_the_same_folder_is_refused(built: Path) -> None:
    other = shrunken().model_copy(update={"seed": 1})
    with pytest.raises(InvalidRequest, match="holds another recipe"):
        build(built, other).run("world")


def test_a_part_without_its_forerunner_says_so(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="build the autoencoder first"):
        build(tmp_path).run("generator")


def test_an_unknown_part_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidRequest, match="world, autoencoder, generator, verifier"):
        build(tmp_path).run("decoder")


def test_labels_of_one_kind_only_are_refused(built: Path, tmp_path: Path) -> None:
    (tmp_path / "generator").symlink_to(built / "generator")
    strict = Build(shrunken(), tmp_path, torch.device("cpu"), lambda _: None, label)
    with pytest.raises(ForejudgeError, match="needs both right and wrong"):
        strict.run("verifier")
