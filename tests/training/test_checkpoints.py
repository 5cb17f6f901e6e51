"""Checkpoints on disk: which one a run continues from, and what a damaged one does to it."""

import json
import logging
import shutil
from pathlib import Path

import pytest
from transformers import TrainerState, TrainingArguments

from forejudge.errors import CheckpointError, InvalidRequest
from forejudge.files import write_json
from forejudge.progress import Progress, ignore_progress
from forejudge.training.checkpoints import Checkpoint, newest_checkpoint
from forejudge.training.trainer import MetricsLog
from tests.support.tiny_run import TinyRun, assert_weights_equal, weights

FILES = ("model.safetensors", "optimizer.pt", "scheduler.pt", "rng_state.pth", "trainer_state.json", "digests.json")
DAMAGES = {
    "empty": lambda content: b"",
    "half": lambda content: content[: len(content) // 2],
    "flipped": lambda content: content[:-3] + bytes([content[-3] ^ 1]) + content[-2:],
    "null": lambda content: b"null",
    "listed": lambda content: b"[]",
    "braces": lambda content: b"{}",
}


def write_checkpoint(folder: Path, step: int, best: int | None) -> Checkpoint:
    """Write a sealed checkpoint as a trainer does, with other bytes in place of tensors."""
    checkpoint = Checkpoint(folder / f"checkpoint-{step}")
    control = {"args": {"should_training_stop": False}}
    state = {"global_step": step, "best_global_step": best, "stateful_callbacks": {"TrainerControl": control}}
    write_json(checkpoint.path / "trainer_state.json", state)
    for name in FILES[:4]:
        (checkpoint.path / name).write_bytes(bytes(range(64)))
    checkpoint.seal()
    return checkpoint


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Whole checkpoints of steps 2, 4 and 10; the first is the best until the last. One is of another name."""
    for step, best in ((2, 2), (4, 2), (10, 10)):
        write_checkpoint(tmp_path, step, best)
    shutil.copytree(tmp_path / "checkpoint-2", tmp_path / "checkpoint-best")
    return tmp_path


def test_the_newest_of_whole_checkpoints_is_taken(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert newest_checkpoint(folder) == Checkpoint(folder / "checkpoint-10")
    assert not caplog.records
    assert newest_checkpoint(folder / "none") is None


@pytest.mark.parametrize("name", FILES)
def test_a_damaged_checkpoint_is_passed_over_with_a_warning(
    folder: Path, caplog: pytest.LogCaptureFixture, name: str
) -> None:
    path = folder / "checkpoint-10" / name
    content = path.read_bytes()
    for damage in DAMAGES.values():
        caplog.clear()
        path.write_bytes(damage(content))
        assert newest_checkpoint(folder) == Checkpoint(folder / "checkpoint-4")
        (said,) = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
        assert str(path) in said
        assert said.endswith(f"; continuing from {folder / 'checkpoint-4'}")


@pytest.mark.parametrize("name", FILES)
def test_a_file_that_is_gone_is_damage_but_an_interrupted_checkpoint_is_none(
    folder: Path, caplog: pytest.LogCaptureFixture, name: str
) -> None:
    (folder / "checkpoint-10" / name).unlink()
    assert newest_checkpoint(folder) == Checkpoint(folder / "checkpoint-4")
    assert len(caplog.records) == (name != "digests.json")


@pytest.mark.parametrize("steps", [[2], [2, 10]])
def test_without_a_whole_checkpoint_the_folder_to_delete_is_named(tmp_path: Path, steps: list[int]) -> None:
    """The best checkpoint counts as a part of those after it."""
    for step in steps:
        write_checkpoint(tmp_path, step, best=2)
    (tmp_path / "checkpoint-2" / "model.safetensors").write_bytes(b"other")
    with pytest.raises(CheckpointError, match=f"has changed since it was written, .*: delete {tmp_path} to train from"):
        newest_checkpoint(tmp_path)


def test_a_run_continues_from_the_checkpoint_before_a_damaged_one(
    tiny_run: TinyRun, trained_verifier: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """It ends with the weights of an undisturbed run, and only two checkpoints and their best ones are kept."""

    def stop(progress: Progress) -> None:
        if progress.step == 10:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        tiny_run.verify(tmp_path, stop)
    path = tmp_path / "checkpoints" / "checkpoint-8" / "model.safetensors"
    content = bytearray(path.read_bytes())
    content[-9] ^= 1
    path.write_bytes(content)
    told: list[Progress] = []
    tiny_run.verify(tmp_path, told.append)
    assert [progress.step for progress in told] == [5, 6, 7, 8, 9, 10]
    assert "continuing from" in caplog.text
    assert_weights_equal(weights(tmp_path), weights(trained_verifier))


def test_old_checkpoints_are_removed(tiny_run: TinyRun, tmp_path: Path) -> None:
    """The two newest stay, each with the best one up to it."""
    seen: list[set[int]] = []

    def look(progress: Progress) -> None:
        paths = (tmp_path / "checkpoints").glob("checkpoint-*")
        seen.append({Checkpoint(path).step for path in paths})

    tiny_run.align(tmp_path, look, steps=6, eval_steps=1, learning_rate=1e-12)
    assert all({step - 1, step - 2} & set(range(1, 10)) <= steps for step, steps in enumerate(seen, start=1))
    assert max(map(len, seen)) <= 4


def test_lines_of_steps_that_are_repeated_are_dropped(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 1, "loss": 0.5}\n{"step": 4, "grad_norm": NaN}\n{"step": 5}\n{"step": 6, "lo')
    MetricsLog(path, "align", ignore_progress).on_train_begin(None, TrainerState(global_step=4), None)
    assert path.read_text() == '{"step": 1, "loss": 0.5}\n{"step": 4, "grad_norm": NaN}\n'


def test_a_foreign_line_among_the_metrics_is_named(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 1}\n{"step": "4"}\n{"step": 5}\n')
    with pytest.raises(CheckpointError, match=r"metrics\.jsonl, line 2: step = '4': Input should be a valid integer"):
        MetricsLog(path, "align", ignore_progress).on_train_begin(None, TrainerState(), None)


@pytest.mark.parametrize("name", ["recipe.json", "trained_on.json"])
@pytest.mark.parametrize("content", ["null", "[]", "3", "{}", '{"stage": 3}'])
def test_a_wrong_shape_of_what_a_run_was_begun_with_is_named(
    tiny_run: TinyRun, tmp_path: Path, name: str, content: str
) -> None:
    (tmp_path / name).write_text(content)
    with pytest.raises(CheckpointError, match=name):
        tiny_run.verify(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [name]


@pytest.mark.parametrize(
    ("save_dtype", "learning_rate", "said"),
    [
        ("float16", 1e6, r"model\.connector\.layers\.0\.weight is not finite in float16"),
        ("float32", 1e38, "training diverged by step 2, the validation loss is nan|is not finite in float32"),
    ],
)
def test_a_training_that_diverged_is_refused_and_keeps_its_last_finite_checkpoint(
    tiny_run: TinyRun,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    save_dtype: str,
    learning_rate: float,
    said: str,
) -> None:
    """The first step changes nothing: the learning rate, beyond what a recipe may have, is still 0."""
    monkeypatch.setattr(
        "forejudge.training.trainer.TrainingArguments",
        lambda **arguments: TrainingArguments(**arguments | {"learning_rate": learning_rate}),
    )
    with pytest.raises(InvalidRequest, match=said):
        tiny_run.align(tmp_path, eval_steps=1, save_dtype=save_dtype)
    assert not (tmp_path / "verifier.json").exists()
    kept = newest_checkpoint(tmp_path / "checkpoints")
    assert kept is not None
    assert kept.step == 1


def test_refused_trainings_leave_nothing(tiny_run: TinyRun, tmp_path: Path) -> None:
    out = tmp_path / "out"
    for changes in ({"gradient_accumulation_steps": 3}, {"precision": "float16"}):
        with pytest.raises(InvalidRequest):
            tiny_run.verify(out, **changes)
    assert not out.exists()


def test_seals_are_read_as_json(folder: Path) -> None:
    seal = json.loads((folder / "checkpoint-2" / "digests.json").read_text())
    assert sorted(seal) == sorted(FILES[:5])
