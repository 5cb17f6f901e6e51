"""The whole build on a shrunken recipe: deterministic, and not shaken by a kill."""

import hashlib
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from forejudge import BestOfN
from forejudge.errors import CheckpointError, InvalidRequest
from forejudge.miniature.evaluator import MiniatureEvaluator
from forejudge.progress import Progress
from research.miniature.recipe import tiny_recipe
from research.tests.killed_build import MOMENTS, frequent_checkpoints
from research.tests.small_build import build

SHIPPED = ("generator", "language_model", "verifier")
BUILT = (*SHIPPED, "world", "clip", "classifier", "tiny_decoder", "baselines")


def hashes(folder: Path) -> dict[str, str]:
    """Digests of all that is built, without cards and logs, which tell the time it took."""
    files = [file for part in BUILT for file in sorted((folder / part).rglob("*")) if file.is_file()]
    return {
        str(file.relative_to(folder)): hashlib.sha256(file.read_bytes()).hexdigest()
        for file in files
        if file.suffix not in (".md", ".jsonl")
    }


def test_a_build_can_be_used(built: Path) -> None:
    search = BestOfN.from_pretrained(str(built / "generator"), str(built / "verifier"), device="cpu")
    result = search("a photo of a star", n=2)
    assert result.image.size == (64, 64)
    assert result.record.settings.warnings == ()
    assert result.winner.probability is not None


def test_cards_tell_how_the_weights_were_made(built: Path) -> None:
    for part in (*SHIPPED, "tiny_decoder"):
        card = (built / part / "README.md").read_text()
        assert "| commit |" in card
        assert "| device |" in card
        assert '"steps"' in card
        assert "license: apache-2.0" in card


def test_what_is_shipped_holds_weights_and_no_checkpoints(built: Path) -> None:
    endings = {file.suffix for part in SHIPPED for file in (built / part).rglob("*") if file.is_file()}
    assert endings == {".json", ".jsonl", ".jinja", ".md", ".safetensors"}


def test_weights_are_stored_in_half_precision(built: Path) -> None:
    for file in ("generator/transformer/diffusion_pytorch_model", "language_model/model", "verifier/connector"):
        tensors = load_file(built / f"{file}.safetensors")
        trained = {name: tensor for name, tensor in tensors.items() if name not in ("mean_D", "variance_D")}
        assert {tensor.dtype for tensor in trained.values()} == {torch.float16}, file


def test_the_generator_is_trained_shallow_and_then_deep(built: Path, progress_reports: list[Progress]) -> None:
    parts = list(dict.fromkeys(progress.part for progress in progress_reports))
    assert parts[:4] == ["autoencoder", "shallow generator", "generator", "language model"]
    assert parts[-3:] == ["align", "verify", "tiny decoder"]
    tensors = load_file(built / "generator" / "transformer" / "diffusion_pytorch_model.safetensors")
    assert len({name.split(".")[1] for name in tensors if name.startswith("transformer_blocks.")}) == 4


@pytest.mark.slow  # a second build, in two processes
def test_a_build_killed_three_times_ends_the_same(built: Path, tmp_path: Path, repository: Path) -> None:
    """By itself, in another process."""
    command = [sys.executable, "-m", "research.tests.killed_build", str(tmp_path)]
    ended = subprocess.run(command, cwd=repository, capture_output=True, text=True, timeout=600)
    assert ended.stdout.splitlines() == [f"{moment} -9" for moment in MOMENTS], ended.stderr
    assert not (tmp_path / "verifier" / "README.md").exists()
    left: list[Progress] = []
    build(tmp_path, frequent_checkpoints(), left.append).run()
    verify, cross_attention, tiny_decoder, of_baselines = left[:3], left[3:9], left[9], left[10:]
    assert [(progress.part, progress.step) for progress in verify] == [("verify", step) for step in (4, 5, 6)]
    assert [progress.part for progress in cross_attention] == ["verify"] * 6
    assert (tiny_decoder.part, tiny_decoder.step) == ("tiny decoder", 20)
    assert [progress.part for progress in of_baselines] == (["align"] * 6 + ["verify"] * 6) * 2
    assert hashes(tmp_path) == hashes(built)


@pytest.mark.slow  # two builds, in two processes
def test_two_builds_of_one_recipe_are_equal(tmp_path: Path, repository: Path) -> None:
    """Also where sets and dictionaries of text are in another order."""
    program = (
        "import sys; from pathlib import Path; from research.tests.small_build import build\n"
        "build(Path(sys.argv[1])).run()"
    )
    builds = [
        subprocess.Popen(
            [sys.executable, "-c", program, str(tmp_path / seed)],
            cwd=repository,
            env=os.environ | {"PYTHONHASHSEED": seed},
        )
        for seed in ("1", "2")
    ]
    assert [process.wait(timeout=600) for process in builds] == [0, 0]
    first, second = (hashes(tmp_path / seed) for seed in ("1", "2"))
    assert [name for name in first if first[name] != second.get(name)] == []
    assert first.keys() == second.keys()
    assert {"clip/tokenizer.json", "language_model/tokenizer.json"} < first.keys()


def test_a_finished_build_is_not_made_again(built: Path) -> None:
    before = hashes(built)
    reports: list[Progress] = []
    build(built, report=reports.append).run()
    assert reports == []
    assert hashes(built) == before


def test_another_recipe_in_the_same_folder_is_refused(built: Path) -> None:
    other = tiny_recipe().model_copy(update={"seed": 1})
    with pytest.raises(InvalidRequest, match="holds another recipe"):
        build(built, other).run("world")


@pytest.mark.parametrize(
    ("part", "said"),
    [
        ("generator", "autoencoder is missing: build the autoencoder first"),
        ("verifier", "generator is no folder"),
    ],
)
def test_a_part_without_its_forerunner_says_so(tmp_path: Path, part: str, said: str) -> None:
    with pytest.raises(CheckpointError, match=said):
        build(tmp_path).run(part)


@pytest.mark.parametrize(("baseline", "stages"), [("clip", ["image"] * 2), ("preview", ["latent(step 0)", "image"])])
def test_baselines_are_verifiers_of_the_same_generator(built: Path, baseline: str, stages: list[str]) -> None:
    search = BestOfN.from_pretrained(str(built / "generator"), str(built / "baselines" / baseline), device="cpu")
    result = search("a photo of a star", n=2)
    assert result.record.settings.warnings == ()
    assert sorted(candidate.stage for candidate in result.record.candidates) == sorted(stages)


def test_an_unknown_part_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidRequest, match="language-model, clip, classifier, verifier, tiny-decoder, baselines"):
        build(tmp_path).run("decoder")


def test_labels_of_one_kind_only_are_refused(built: Path, tmp_path: Path) -> None:
    """The generator draws nothing that its own evaluator would call right."""
    for part in ("generator", "language_model", "clip"):
        (tmp_path / part).symlink_to(built / part)
    with pytest.raises(InvalidRequest, match="needs right and wrong ones"):
        build(tmp_path, evaluator=MiniatureEvaluator()).run("verifier")
