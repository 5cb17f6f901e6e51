"""Runs that are stopped, stop by themselves, or must not begin."""

import importlib.util
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from forejudge.errors import InvalidRequest, MissingExtra
from forejudge.progress import Progress
from tests.support.killed_training import IN_AN_EPOCH, MOMENTS, STOPS_EARLY
from tests.support.tiny_run import TinyRun, assert_weights_equal, weights

DONE_AGAIN = {
    "at-a-step": [5, 6, 7, 8, 9, 10],
    "at-a-step-of-a-run-that-stops-early": [5, 6],
    "in-a-checkpoint": [5, 6, 7, 8, 9, 10],
    "before-the-card": [],
    "before-the-card-of-a-run-that-stopped-early": [],
}


@pytest.fixture(scope="module")
def killed(tiny_run: TinyRun, repository: Path) -> TinyRun:
    """A run for each moment at which one was killed."""
    command = [sys.executable, "-m", "tests.support.killed_training", str(tiny_run.folder)]
    ended = subprocess.run(command, cwd=repository, capture_output=True, text=True, timeout=600)
    assert ended.stdout.splitlines() == [f"{moment} -9" for moment in MOMENTS], ended.stderr
    return tiny_run


@pytest.fixture(scope="module")
def whole(tiny_run: TinyRun) -> dict[str, Path]:
    """Finished runs of the same recipes."""
    to_the_end, early = (tiny_run.folder / name for name in ("to-the-end", "early"))
    tiny_run.verify(to_the_end, **IN_AN_EPOCH)
    tiny_run.verify(early, **STOPS_EARLY)
    return {moment: early if changes is STOPS_EARLY else to_the_end for moment, changes in MOMENTS.items()}


def lines(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def evaluated(folder: Path) -> list[tuple[int, float]]:
    return [(line["step"], line["eval_loss"]) for line in lines(folder) if "eval_loss" in line]


@pytest.mark.slow
@pytest.mark.parametrize("moment", MOMENTS)
def test_a_killed_run_goes_on_and_ends_the_same(killed: TinyRun, whole: dict[str, Path], moment: str) -> None:
    folder, expected = killed.folder / moment, whole[moment]
    assert not (folder / "README.md").exists()
    told: list[Progress] = []
    killed.verify(folder, told.append, **MOMENTS[moment])
    assert [progress.step for progress in told] == DONE_AGAIN[moment]
    assert_weights_equal(weights(folder), weights(expected))
    assert evaluated(folder) == evaluated(expected), "each step is evaluated once"
    for file in ("verifier.json", "metrics.json"):
        assert (folder / file).read_text() == (expected / file).read_text()


def test_the_figures_of_every_evaluation_are_kept(trained_verifier: Path) -> None:
    assert [step for step, _ in evaluated(trained_verifier)] == [4, 8, 10]
    best = max(line["eval_pair_accuracy"] for line in lines(trained_verifier) if "eval_pair_accuracy" in line)
    assert json.loads((trained_verifier / "metrics.json").read_text())["pair_accuracy"] == pytest.approx(best)


def test_a_run_without_progress_stops_early(whole: dict[str, Path]) -> None:
    folder = whole["before-the-card-of-a-run-that-stopped-early"]
    assert [step for step, _ in evaluated(folder)] == [2, 4, 6]


def test_progress_is_told_step_by_step(tiny_run: TinyRun, tmp_path: Path) -> None:
    told: list[Progress] = []
    tiny_run.align(tmp_path / "out", told.append, steps=22, eval_steps=22)
    assert [(progress.part, progress.step, progress.steps) for progress in told] == [
        ("align", step, 22) for step in range(1, 23)
    ]
    assert told[-1].note.startswith("loss ")


def test_a_finished_run_is_left_as_it_is(tiny_run: TinyRun, trained_verifier: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in trained_verifier.rglob("*.safetensors")}
    told: list[Progress] = []
    tiny_run.verify(trained_verifier, told.append)
    assert told == []
    assert {path: path.stat().st_mtime_ns for path in trained_verifier.rglob("*.safetensors")} == before


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"learning_rate": 0.5}, "was begun with learning_rate = 0.0015, this run has learning_rate = 0.5"),
        ({"loss": {"kind": "focal"}}, "was begun with loss = .*class-weighted.*, this run has loss = .*focal"),
    ],
)
def test_another_recipe_in_its_folder_is_refused(
    tiny_run: TinyRun, trained_verifier: Path, changes: dict[str, Any], said: str
) -> None:
    recipe = (trained_verifier / "recipe.json").read_text()
    with pytest.raises(InvalidRequest, match=said):
        tiny_run.verify(trained_verifier, **changes)
    assert (trained_verifier / "recipe.json").read_text() == recipe


def test_the_other_stage_in_its_folder_is_refused(tiny_run: TinyRun, aligned: Path) -> None:
    with pytest.raises(
        InvalidRequest, match=r"aligned was begun with stage = align, this run has stage = verify: choose another --out"
    ):
        tiny_run.verify(aligned)


def test_a_batch_that_does_not_divide_is_refused(tiny_run: TinyRun, tmp_path: Path) -> None:
    with pytest.raises(InvalidRequest, match="batch_size = 8 does not divide by 1 processes x 3 accumulated"):
        tiny_run.verify(tmp_path / "out", gradient_accumulation_steps=3)


def test_tensorboard_that_is_not_installed_is_named(
    tiny_run: TinyRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    find_spec = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "tensorboard" else find_spec(name))
    with pytest.raises(MissingExtra, match=r"pip install 'forejudge\[tensorboard\]'"):
        tiny_run.verify(tmp_path / "out", tensorboard=True)


@pytest.mark.slow
def test_two_processes_train_what_one_does(tiny_run: TinyRun, repository: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    program = ["-m", "tests.support.trained_by_several", str(tiny_run.folder), str(tmp_path / "two")]
    ended = subprocess.run([*command, *program], cwd=repository, capture_output=True, text=True, timeout=600)
    assert ended.returncode == 0, ended.stderr
    one, two = tiny_run.verify(tmp_path / "one", early_stopping_patience=2), tmp_path / "two"
    assert_weights_equal(weights(two), weights(one), tolerance=1e-4)
    assert dict(evaluated(two)) == pytest.approx(dict(evaluated(one)), abs=1e-3)
    found, expected = (json.loads((folder / "metrics.json").read_text()) for folder in (two, one))
    assert found == pytest.approx(expected, abs=0.02)
