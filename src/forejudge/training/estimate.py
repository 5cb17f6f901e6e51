"""Cost estimates of long work before it starts: FLOPs, disk, and time on this device from a short measurement.

Every estimate is a sum of parts that are measured by themselves, so noise in the timings cannot make it negative. It
covers a whole training run, also where a part of it is done already.
"""

from collections.abc import Callable, Mapping, Sequence
from copy import copy
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from itertools import count
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from forejudge.candidates.collect import RECORDED, CandidateCollector
from forejudge.candidates.store import CandidateStore
from forejudge.config_files import read_config
from forejudge.device import launched_processes, resolve_precision
from forejudge.files import scratch_folder
from forejudge.generators.base import Generator
from forejudge.hub import check_name
from forejudge.profiling.measure import count_flops, measure_time
from forejudge.progress import Shard, ignore_progress
from forejudge.training.align import prepare_alignment
from forejudge.training.config import (
    RECIPE_FILE,
    AlignRecipe,
    RecipeModels,
    RecipeT,
    TrainingRecipe,
    VerifyRecipe,
    with_changes,
)
from forejudge.training.dataset import TrainingData, collate_rows
from forejudge.training.model import aligned_digest, language_model_source
from forejudge.training.output import RunFolder
from forejudge.training.trainer import TrainingRun, check_tensorboard
from forejudge.training.verify import prepare_verification

_ROUNDS = 3  # of which the median counts
_TIMED_BATCHES = 2  # batches of training, after one that warms up


@dataclass(frozen=True)
class CostEstimate:
    """Cost of a run: `description` says what it does, `disk_bytes` what it stores, `measurement` what was timed."""

    description: str
    flops: int
    disk_bytes: Mapping[str, int]
    seconds: float
    measurement: str


def estimate_collection(collector: CandidateCollector, folder: CandidateStore, shard: Shard) -> CostEstimate:
    """Estimate what is left of a shard from one encoded prompt and one batch collected into a scratch folder.

    FLOPs are those of one candidate, its observer included. Raises the errors of `CandidateCollector.run` before it
    starts, for the first prompt alone, and any error of the observer.
    """
    rows, candidates, generator = collector.rows_left(folder, shard), collector.candidates, collector.generator
    batch, device = min(candidates, collector.batch_size), generator.device
    encode = partial(generator.encode_without_padding, collector.lines[0].prompt, generator.defaults)
    encode()  # an instruction is read once for all prompts
    encode_flops = count_flops(encode)
    encode_seconds = _seconds(encode, device)
    encoded = replace(collector, generator=_encoding_once(generator))
    with scratch_folder(folder.path) as scratch:
        candidate_flops = count_flops(_trial(encoded, 1, scratch, "counted"))  # and everything is warm
        batch_seconds = _seconds(_trial(encoded, batch, scratch, "timed"), device)
        rows_bytes = sum(path.stat().st_size for path in (scratch / "timed 1" / "rows").glob("*.parquet"))
    prompts = -(-rows // candidates)
    return CostEstimate(
        description=f"{rows} candidates of {prompts} prompts",
        flops=prompts * encode_flops + rows * candidate_flops,
        disk_bytes={RECORDED: collector.bytes_of(rows), "the rows": rows_bytes * rows // batch},
        seconds=prompts * encode_seconds + rows * batch_seconds / batch,
        measurement=f"{batch} candidates generated in {batch_seconds:.2g} s",
    )


def _seconds(workload: Callable[[], object], device: torch.device) -> float:
    return measure_time(workload, device, _ROUNDS, warm_up=0).median / 1000


def _encoding_once(generator: Generator[Any]) -> Generator[Any]:
    """Return a copy of a generator that encodes each prompt once, so that a trial shows the cost of the rest."""
    clone = copy(generator)
    clone.encode_without_padding = lru_cache(generator.encode_without_padding)  # type: ignore[method-assign]
    return clone


def _trial(collector: CandidateCollector, candidates: int, scratch: Path, name: str) -> Callable[[], None]:
    """Return a call that collects candidates of the first prompt, each time in a new folder of `scratch`."""
    trial = replace(collector, lines=collector.lines[:1], candidates=candidates)
    _ = trial.recorded_bytes  # a run measures it on one candidate, once
    folders = (CandidateStore(scratch / f"{name} {number}") for number in count(1))
    return lambda: trial.run(next(folders), Shard(), ignore_progress)


def check_inputs(recipe: TrainingRecipe, folders: Sequence[Path], aligned: Path | None = None) -> None:
    """Check a run's inputs before a model is loaded. Raises CheckpointError for missing or incomplete ones.

    Of models on the hub only the spelling is checked. Raises InvalidRequest for a broken environment of processes.
    """
    launched_processes()
    for folder in folders:
        CandidateStore(folder).check_complete()
    if aligned is not None:
        aligned_digest(aligned)
        read_config(aligned / RECIPE_FILE, RecipeModels)
    language_model = language_model_source(recipe) if recipe.has_language_model else None
    for model in (language_model, recipe.vision_tower, recipe.tiny_decoder):
        if model is not None:
            check_name(model)
    if recipe.tensorboard:
        check_tensorboard()


def estimate_alignment(
    recipe: AlignRecipe, generator: Generator, captions: Path, validation: Path, out: Path
) -> CostEstimate:
    """Estimate the cost of stage 1. Raises the errors that `align` raises before its first step."""
    data = TrainingData.of(captions, validation, generator)
    RunFolder(out, generator).check(recipe, data.inputs("align"))
    run = prepare_alignment(_with_few_statistics(recipe), generator, data).run
    return _estimate(run, out, generator.device, recipe.statistics_rows)


def estimate_verification(
    recipe: VerifyRecipe, generator: Generator, labels: Path, validation: Path, out: Path, aligned: Path | None
) -> CostEstimate:
    """Estimate the cost of stage 2. Raises the errors that `verify` raises before its first step."""
    data = TrainingData.of(labels, validation, generator)
    RunFolder(out, generator).check(recipe, data.inputs("verify", aligned_digest(aligned)))
    run = prepare_verification(_with_few_statistics(recipe), generator, data, aligned).run
    return _estimate(run, out, generator.device, 0 if aligned else recipe.statistics_rows)


def _with_few_statistics(recipe: RecipeT) -> RecipeT:
    return with_changes(recipe, statistics_rows=2, tensorboard=False)


def _estimate(run: TrainingRun, out: Path, device: torch.device, statistics_rows: int) -> CostEstimate:
    recipe, group, trial = run.recipe, run.training.candidates, _TrialRun(run, device)
    num_rows = len(run.training) * group
    num_trained, num_standardized = recipe.steps * run.step_size, min(statistics_rows, num_rows)
    num_validated = -(-recipe.steps // recipe.eval_steps) * len(run.validation)
    flops = num_trained * count_flops(trial.train_one) + num_validated * count_flops(partial(trial.predict, 1))
    flops = (flops + num_standardized * count_flops(partial(trial.load_batch, 1))) // group
    with scratch_folder(out) as folder:
        seconds = run.time_batches(folder, device, _TIMED_BATCHES)
    load_seconds, predict_seconds = (
        _seconds(partial(step, run.batch_size), device) for step in (trial.load_batch, trial.predict)
    )
    return CostEstimate(
        description=f"{recipe.steps} steps of {run.step_size} candidates, each of {num_rows} seen "
        f"{num_trained / num_rows:.2g} times",
        flops=flops,
        disk_bytes=run.disk_bytes,
        seconds=recipe.steps * recipe.gradient_accumulation_steps * seconds
        + (num_standardized * load_seconds + num_validated * predict_seconds) / run.batch_size,
        measurement=f"{_TIMED_BATCHES} batches of {run.batch_size} candidates trained on in "
        f"{_TIMED_BATCHES * seconds:.2g} s",
    )


@dataclass(frozen=True)
class _TrialRun:
    """Parts of a run, done on its first rows."""

    run: TrainingRun
    device: torch.device

    def train_one(self) -> None:
        """Run one candidate, or the smallest group of them, forward and backward."""
        batch = self.load_batch(1)
        labels = batch.pop("labels")
        self.run.module.train()  # as the trainer does: gradient checkpointing runs the forward pass twice
        self.run.loss(self.run.module(**batch), labels).backward()

    @torch.no_grad()
    def predict(self, count: int) -> None:
        """Run `count` candidates forward in the recipe's precision."""
        precision, batch = resolve_precision(self.run.recipe.precision, self.device), self.load_batch(count)
        batch.pop("labels")
        with torch.autocast(self.device.type, precision, enabled=precision != torch.float32):
            self.run.module(**batch)

    def load_batch(self, count: int) -> dict[str, Tensor]:
        """Load a batch: its states from the disk, or generated again."""
        rows = self.run.training
        items = max(count // rows.candidates, 1)
        batch = collate_rows([rows[item % len(rows)] for item in range(items)])
        return {name: part.to(self.device) for name, part in batch.items()}
