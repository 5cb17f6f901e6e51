"""Cost estimates, beside what the work then costs and leaves. Time is a clock that the tests move."""

import itertools
from collections.abc import Iterable, Sequence
from copy import copy
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL.Image import Image
from safetensors.torch import load_file

from forejudge.candidates.collect import RECORDED, CandidateCollector
from forejudge.candidates.observers import LabelObserver
from forejudge.candidates.store import CandidateStore
from forejudge.errors import CheckpointError, InvalidRequest
from forejudge.generators import as_generator, load_generator
from forejudge.generators.base import SamplingParams
from forejudge.miniature.evaluator import MiniatureEvaluator
from forejudge.miniature.prompts import sample_prompt_lines
from forejudge.profiling.measure import count_flops
from forejudge.progress import Shard, ignore_progress
from forejudge.prompts.prompt_file import PromptLine
from forejudge.training.estimate import (
    CostEstimate,
    check_inputs,
    estimate_alignment,
    estimate_collection,
    estimate_verification,
)
from forejudge.verifiers.inputs import build_verifier_input
from tests.support.doubles import FakeClock, load_pipeline
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
        assert work.measurement.startswith("2 batches of 8 candidates trained on in ")
        assert work.seconds > 0
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


def test_seconds_of_a_training_are_those_of_its_parts(
    tiny_run: TinyRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A second between any two readings of the clock: steps, batches of statistics and of evaluations take one each."""
    ticks = itertools.count()
    for module in ("forejudge.profiling.measure", "forejudge.training.trainer"):
        monkeypatch.setattr(f"{module}.perf_counter", lambda: float(next(ticks)))
    work = verification(tiny_run, tmp_path, statistics_rows=16)
    steps, statistics, evaluations = 10, 16 / 8, 3 * 64 / 8
    assert work.seconds == pytest.approx(steps + statistics + evaluations)


def test_what_a_run_would_refuse_is_refused(tiny_run: TinyRun, aligned: Path, trained_verifier: Path) -> None:
    with pytest.raises(InvalidRequest, match="was begun with steps = 10, this run has steps = 11"):
        verification(tiny_run, trained_verifier, steps=11)
    with pytest.raises(CheckpointError, match="has reads = hidden:2, the recipe has latent"):
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
    """Labels of the tiny generator's images, two blocks of them."""
    generator = load_generator(str(tiny_generator), torch.device("cpu"), torch.float32)
    observer = LabelObserver(MiniatureEvaluator())
    lines, verifier_inputs = sample_prompt_lines(PROMPTS, "training", 0), [build_verifier_input("hidden:2")]
    return CandidateCollector(generator, lines, CANDIDATES, 0, observer, verifier_inputs)


class TimedGenerator:
    """Moves a clock by the next of `encode` seconds for each encoded prompt."""

    def __init__(self, collector: CandidateCollector, clock: FakeClock, encode: Iterable[float]) -> None:
        self.generator, durations = copy(collector.generator), iter(encode)

        def encode_without_padding(prompt: str, sampling: SamplingParams) -> Any:
            clock.advance(next(durations))
            return collector.generator.encode_without_padding(prompt, sampling)

        self.generator.encode_without_padding = encode_without_padding  # type: ignore[method-assign]


class TimedObserver(LabelObserver):
    """Moves a clock by the next of `seconds` for each image."""

    def __init__(self, clock: FakeClock, seconds: Iterable[float]) -> None:
        super().__init__(MiniatureEvaluator())
        self._clock, self._seconds = clock, iter(seconds)

    def __call__(self, lines: Sequence[PromptLine], images: Sequence[Image]) -> list[dict[str, Any]]:
        self._clock.advance(next(self._seconds) * len(images))
        return super().__call__(lines, images)


def timed(
    drawing: CandidateCollector, monkeypatch: pytest.MonkeyPatch, encode: Iterable[float], observe: Iterable[float]
) -> tuple[CandidateCollector, FakeClock]:
    """Wrap a collector so that a clock moves only while a prompt is encoded and while images are observed."""
    clock = FakeClock()
    monkeypatch.setattr("forejudge.profiling.measure.perf_counter", clock)
    generator = TimedGenerator(drawing, clock, encode).generator
    return replace(drawing, generator=generator, observer=TimedObserver(clock, observe)), clock


@pytest.mark.slow
def test_the_estimate_is_what_collecting_then_costs(
    drawing: CandidateCollector, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    collector, clock = timed(drawing, monkeypatch, itertools.repeat(2.0), itertools.repeat(0.5))
    folder = CandidateStore(tmp_path / "out")
    work = estimate_collection(collector, folder, Shard())
    assert list(tmp_path.iterdir()) == [], "nothing is left"
    assert work.description == "180 candidates of 6 prompts"
    before = clock()
    flops = count_flops(partial(collector.run, folder, Shard(), ignore_progress))
    assert work.flops == pytest.approx(flops, rel=0.05)  # prompts are not all of one length
    assert work.seconds == pytest.approx(clock() - before) == 6 * 2 + 180 * 0.5
    disk_bytes = sum(
        tensor.nbytes for path in (tmp_path / "out" / "states").iterdir() for tensor in load_file(path).values()
    )
    assert work.disk_bytes[RECORDED] == disk_bytes
    rows = sum(path.stat().st_size for path in (tmp_path / "out" / "rows").glob("*.parquet"))
    assert rows < work.disk_bytes["the rows"] < 20 * rows


def test_noise_makes_no_estimate_negative(
    drawing: CandidateCollector, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a loaded machine a prompt may take longer to encode than a whole batch to generate."""
    encode = itertools.chain([0.0, 0.0, 90.0, 0.1, 50.0], itertools.repeat(0.0))  # the first two are not timed
    observe = itertools.chain([0.0, 0.001, 3.0, 0.002], itertools.repeat(0.0))  # nor is the first of these
    collector, _ = timed(drawing, monkeypatch, encode, observe)
    work = estimate_collection(collector, CandidateStore(tmp_path), Shard())
    assert work.seconds == pytest.approx(6 * 50 + 180 * 0.002), "medians of three"


def test_an_instruction_counts_once(tiny_generator: Path, tmp_path: Path) -> None:
    """It is read with the first prompt and never again."""
    instruction = ["a photo of a red circle left of a blue square"]
    generator = as_generator(load_pipeline(tiny_generator), options={"complex_human_instruction": instruction})
    lines = sample_prompt_lines(PROMPTS, "training", 0)
    drawing = CandidateCollector(generator, lines, 3, 0, LabelObserver(MiniatureEvaluator()), [])
    work = estimate_collection(drawing, CandidateStore(tmp_path), Shard())
    flops = count_flops(partial(drawing.run, CandidateStore(tmp_path), Shard(), ignore_progress))
    assert work.flops == pytest.approx(flops, rel=0.05)


@pytest.mark.slow
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
