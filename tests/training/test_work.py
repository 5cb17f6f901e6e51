"""What there is to draw, measured beforehand, beside what drawing it then takes."""

from dataclasses import replace
from functools import partial
from pathlib import Path
from time import perf_counter

import pytest
import torch
from safetensors.torch import load_file
from tests.doubles import load_pipeline

from forejudge.errors import InvalidRequest
from forejudge.generators import as_generator, load_generator
from forejudge.miniature.evaluator import MiniatureEvaluator
from forejudge.miniature.splits import sample_prompt_lines
from forejudge.profiling.flops import count_flops
from forejudge.progress import report_nothing
from forejudge.shard import Shard
from forejudge.training.drawing import RECORDED, CandidateDrawing
from forejudge.training.labels import LabelObserver
from forejudge.training.row_folder import RowFolder
from forejudge.training.work import drawing_work
from forejudge.verifiers.reading import reading_named

PROMPTS, CANDIDATES = 6, 30


@pytest.fixture
def drawing(tiny_generator: Path) -> CandidateDrawing:
    """Labels of the tiny generator's pictures, two blocks of them."""
    generator = load_generator(str(tiny_generator), torch.device("cpu"), torch.float32)
    observer = LabelObserver(MiniatureEvaluator())
    lines, readings = sample_prompt_lines(PROMPTS, "training", 0), [reading_named("hidden:2")]
    return CandidateDrawing(generator, lines, CANDIDATES, 0, observer, readings)


def test_the_work_is_what_drawing_then_takes(drawing: CandidateDrawing, tmp_path: Path) -> None:
    folder = RowFolder(tmp_path / "out")
    work = drawing_work(drawing, folder, Shard())
    assert list(tmp_path.iterdir()) == [], "nothing is left"
    assert work.amount == "180 candidates of 6 prompts"
    started = perf_counter()
    flops = count_flops(partial(drawing.run, folder, Shard(), report_nothing))
    seconds = perf_counter() - started
    assert work.flops == pytest.approx(flops, rel=0.05)  # prompts are not all of one length
    assert seconds / 7 < work.seconds < seconds * 7  # less than the candidates of a batch
    stored = sum(
        tensor.nbytes for path in (tmp_path / "out" / "states").iterdir() for tensor in load_file(path).values()
    )
    assert work.stored[RECORDED] == stored
    rows = sum(path.stat().st_size for path in (tmp_path / "out" / "rows").glob("*.parquet"))
    assert rows < work.stored["the rows"] < 20 * rows


def test_an_instruction_counts_once(tiny_generator: Path, tmp_path: Path) -> None:
    """It is read with the first prompt and never again."""
    instruction = ["a photo of a red circle left of a blue square"]
    generator = as_generator(load_pipeline(tiny_generator), options={"complex_human_instruction": instruction})
    lines = sample_prompt_lines(PROMPTS, "training", 0)
    drawing = CandidateDrawing(generator, lines, 3, 0, LabelObserver(MiniatureEvaluator()), [])
    work = drawing_work(drawing, RowFolder(tmp_path), Shard())
    flops = count_flops(partial(drawing.run, RowFolder(tmp_path), Shard(), report_nothing))
    assert work.flops == pytest.approx(flops, rel=0.05)


def test_only_what_is_left_counts(drawing: CandidateDrawing, tmp_path: Path) -> None:
    folder = RowFolder(tmp_path)
    whole = drawing_work(drawing, folder, Shard())
    part = drawing_work(drawing, folder, Shard(1, 2))
    drawing.run(folder, Shard(1, 2), report_nothing)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    rest = drawing_work(drawing, folder, Shard())
    assert (part.amount, rest.amount) == ("120 candidates of 4 prompts", "60 candidates of 2 prompts")
    assert part.flops + rest.flops == whole.flops
    assert part.stored[RECORDED] + rest.stored[RECORDED] == whole.stored[RECORDED]
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == before


def test_a_folder_of_other_settings_is_refused(drawing: CandidateDrawing, tmp_path: Path) -> None:
    RowFolder(tmp_path).begin(drawing.settings)
    with pytest.raises(InvalidRequest, match="was made with candidates = 30, this run has candidates = 2"):
        drawing_work(replace(drawing, candidates=2), RowFolder(tmp_path), Shard())
