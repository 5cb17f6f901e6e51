"""What training amounts to, measured beforehand, beside what it then leaves."""

from pathlib import Path
from typing import Any

import pytest
from tests.training.tiny_run import TinyRun, weights

from forejudge.errors import CheckpointError, InvalidRequest
from forejudge.training.training_work import alignment_work, check_inputs, verification_work
from forejudge.training.work import Work


def verification(run: TinyRun, out: Path, aligned: Path | None = None, **changes: object) -> Work:
    recipe = run.verify_recipe(**changes)
    return verification_work(recipe, run.generator, run.training, run.validation, out, aligned)


def test_both_stages_are_measured_and_leave_nothing(tiny_run: TinyRun, verified: Path, tmp_path: Path) -> None:
    second = verification(tiny_run, tmp_path / "out")
    inputs = tiny_run.generator, tiny_run.training, tiny_run.validation
    first = alignment_work(tiny_run.align_recipe(), *inputs, tmp_path / "out")
    assert list(tmp_path.iterdir()) == []
    for work in (first, second):
        assert work.amount == "10 steps of 8 candidates, each of 120 seen 0.67 times"
        assert work.measured.startswith("2 batches of 8 candidates learnt from in ")
        assert 0 < work.seconds < 60
        assert work.stored["the verifier"] == sum(tensor.nbytes for tensor in weights(verified).values())
    # Of the frozen language model there is nothing that an optimiser remembers.
    assert _checkpoints(first) < _checkpoints(second)


def test_work_grows_with_what_is_learnt(tiny_run: TinyRun, tmp_path: Path) -> None:
    """Twice the steps, twice the operations, evaluations and all; accumulating in other pieces changes none."""
    variants: list[dict[str, Any]] = [{}, {"steps": 20}, {"accumulated_batches": 4}]
    ten, twenty, in_pieces = (
        verification(tiny_run, tmp_path, **changes, evaluate_every=5, statistics_rows=1) for changes in variants
    )
    assert twenty.flops == pytest.approx(2 * ten.flops, rel=0.01)
    assert in_pieces.flops == ten.flops
    assert in_pieces.measured.startswith("2 batches of 2 candidates")


def test_what_a_run_would_refuse_is_refused(tiny_run: TinyRun, aligned: Path, verified: Path) -> None:
    with pytest.raises(InvalidRequest, match="was begun with steps = 10, this run has 11"):
        verification(tiny_run, verified, steps=11)
    with pytest.raises(CheckpointError, match="has reads = hidden:2, the recipe latent"):
        verification(tiny_run, Path("out"), aligned, reads="latent")


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"language_model": "none"}, "none is no folder, nor a hub id"),
        ({"vision_tower": "none", "reads": "clip"}, "none is no folder, nor a hub id"),
    ],
)
def test_models_are_looked_for_before_any_is_loaded(tiny_run: TinyRun, changes: dict[str, str], said: str) -> None:
    with pytest.raises(CheckpointError, match=said):
        check_inputs(tiny_run.verify_recipe(**changes), [tiny_run.training])


def test_folders_are_looked_for_before_any_model(tiny_run: TinyRun, aligned: Path, tmp_path: Path) -> None:
    recipe = tiny_run.verify_recipe()
    check_inputs(recipe, [tiny_run.training, tiny_run.validation], aligned)
    for folders, connector in (([tmp_path / "none"], None), ([tiny_run.training], tmp_path / "none")):
        with pytest.raises(CheckpointError, match="none"):
            check_inputs(recipe, folders, connector)


def _checkpoints(work: Work) -> int:
    return next(size for what, size in work.stored.items() if what.startswith("checkpoints"))
