"""What training amounts to, measured beforehand, beside what it then leaves."""

from dataclasses import replace
from functools import partial
from pathlib import Path
from time import perf_counter
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from forejudge.candidates.collect import RECORDED, CandidateCollector
from forejudge.candidates.observers import LabelObserver
from forejudge.candidates.store import CandidateStore
from forejudge.errors import CheckpointError, InvalidRequest
from forejudge.generators import as_generator, load_generator
from forejudge.miniature.evaluator import MiniatureEvaluator
from forejudge.miniature.prompts import sample_prompt_lines
from forejudge.profiling.measure import count_flops
from forejudge.progress import Shard, ignore_progress
from forejudge.training.estimate import (
    CostEstimate,
    check_inputs,
    estimate_alignment,
    estimate_collection,
    estimate_verification,
)
from forejudge.verifiers.inputs import build_verifier_input
from tests.support.doubles import load_pipeline
from tests.support.tiny_run import TinyRun, weights


def verification(run: TinyRun, out: Path, aligned: Path | None = None, **changes: object) -> CostEstimate:
    recipe = run.verify_recipe(**changes)
    return estimate_verification(recipe, run.generator, run.training, run.validation, out, aligned)


def test_both_stages_are_measured_and_leave_nothing(tiny_run: TinyRun, trained_verifier: Path, tmp_path: Path) -> None:
    second = verification(tiny_run, tmp_path / "out")
    inputs = tiny_run.generator, tiny_run.training, tiny_run.validation
    first = estimate_alignment(tiny_run.align_recipe(), *inputs, tmp_path / "out")
    assert list(tmp_path.iterdir()) == []
    for work in (first, second):
        assert work.description == "10 steps of 8 candidates, each of 120 seen 0.67 times"
        assert work.measurement.startswith("2 batches of 8 candidates learnt from in ")
        assert 0 < work.seconds < 60
        assert work.disk_bytes["the verifier"] == sum(tensor.nbytes for tensor in weights(trained_verifier).values())
    # Of the frozen language model there is nothing that an optimiser remembers.
    assert _checkpoints(first) < _checkpoints(second)


def test_work_grows_with_what_is_learnt(tiny_run: TinyRun, tmp_path: Path) -> None:
    """Twice the steps, twice the operations, evaluations and all; accumulating in other pieces changes none."""
    variants: list[dict[str, Any]] = [{}, {"steps": 20}, {"gradient_accumulation_steps": 4}]
    ten, twenty, in_pieces = (
        verification(tiny_run, tmp_path, **changes, eval_steps=5, statistics_rows=1) for changes in variants
    )
    assert twenty.flops == pytest.approx(2 * ten.flops, rel=0.01)
    assert in_pieces.flops == ten.flops
    assert in_pieces.measurement.startswith("2 batches of 2 candidates")


def test_what_a_run_would_refuse_is_refused(tiny_run: TinyRun, aligned: Path, trained_verifier: Path) -> None:
    with pytest.raises(InvalidRequest, match="was begun with steps = 10, this run has steps = 11"):
        verification(tiny_run, trained_verifier, steps=11)
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


def _checkpoints(work: CostEstimate) -> int:
    return next(size for what, size in work.disk_bytes.items() if what.startswith("checkpoints"))


PROMPTS, CANDIDATES = 6, 30


@pytest.fixture
def drawing(tiny_generator: Path) -> CandidateCollector:
    """Labels of the tiny generator's pictures, two blocks of them."""
    generator = load_generator(str(tiny_generator), torch.device("cpu"), torch.float32)
    observer = LabelObserver(MiniatureEvaluator())
    lines, verifier_inputs = sample_prompt_lines(PROMPTS, "training", 0), [build_verifier_input("hidden:2")]
    return CandidateCollector(generator, lines, CANDIDATES, 0, observer, verifier_inputs)


def test_the_work_is_what_drawing_then_takes(drawing: CandidateCollector, tmp_path: Path) -> None:
    folder = CandidateStore(tmp_path / "out")
    work = estimate_collection(drawing, folder, Shard())
    assert list(tmp_path.iterdir()) == [], "nothing is left"
    assert work.description == "180 candidates of 6 prompts"
    started = perf_counter()
    flops = count_flops(partial(drawing.run, folder, Shard(), ignore_progress))
    seconds = perf_counter() - started
    assert work.flops == pytest.approx(flops, rel=0.05)  # prompts are not all of one length
    assert seconds / 7 < work.seconds < seconds * 7  # less than the candidates of a batch
    disk_bytes = sum(
        tensor.nbytes for path in (tmp_path / "out" / "states").iterdir() for tensor in load_file(path).values()
    )
    assert work.disk_bytes[RECORDED] == disk_bytes
    rows = sum(path.stat().st_size for path in (tmp_path / "out" / "rows").glob("*.parquet"))
    assert rows < work.disk_bytes["the rows"] < 20 * rows


def test_an_instruction_counts_once(tiny_generator: Path, tmp_path: Path) -> None:
    """It is read with the first prompt and never again."""
    instruction = ["a photo of a red circle left of a blue square"]
    generator = as_generator(load_pipeline(tiny_generator), options={"complex_human_instruction": instruction})
    lines = sample_prompt_lines(PROMPTS, "training", 0)
    drawing = CandidateCollector(generator, lines, 3, 0, LabelObserver(MiniatureEvaluator()), [])
    work = estimate_collection(drawing, CandidateStore(tmp_path), Shard())
    flops = count_flops(partial(drawing.run, CandidateStore(tmp_path), Shard(), ignore_progress))
    assert work.flops == pytest.approx(flops, rel=0.05)


def test_only_what_is_left_counts(drawing: CandidateCollector, tmp_path: Path) -> None:
    folder = CandidateStore(tmp_path)
    whole = estimate_collection(drawing, folder, Shard())
    part = estimate_collection(drawing, folder, Shard(1, 2))
    drawing.run(folder, Shard(1, 2), ignore_progress)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    rest = estimate_collection(drawing, folder, Shard())
    assert (part.description, rest.description) == ("120 candidates of 4 prompts", "60 candidates of 2 prompts")
    assert part.flops + rest.flops == whole.flops
    assert part.disk_bytes[RECORDED] + rest.disk_bytes[RECORDED] == whole.disk_bytes[RECORDED]
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == before


def test_a_folder_of_other_settings_is_refused(drawing: CandidateCollector, tmp_path: Path) -> None:
    CandidateStore(tmp_path).begin(drawing.settings)
    with pytest.raises(InvalidRequest, match="was begun with candidates = 30, this run has candidates = 2"):
        estimate_collection(replace(drawing, candidates=2), CandidateStore(tmp_path), Shard())
