"""What a stage of the training amounts to: batches of it are learnt from and answered, and nothing is kept.

It is always the whole of it that is reckoned, also where a part is done already.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from forejudge.candidates.collect import RECORDED, CandidateCollector
from forejudge.candidates.store import CandidateStore
from forejudge.config_files import read_config
from forejudge.device import resolve_dtype
from forejudge.files import scratch_folder
from forejudge.generators.base import Generator
from forejudge.hub import check_name
from forejudge.profiling.measure import count_flops, measure_time
from forejudge.progress import Shard, ignore_progress
from forejudge.training.align import prepare_alignment
from forejudge.training.config import RECIPE_FILE, AlignRecipe, RecipeModels, RecipeT, TrainingRecipe, VerifyRecipe
from forejudge.training.dataset import TrainingData, collate_rows
from forejudge.training.model import aligned_digest, language_model_source
from forejudge.training.output import RunFolder
from forejudge.training.trainer import TrainingRun, check_tensorboard
from forejudge.training.verify import prepare_verification

# FOLDED: What long work amounts to before it is begun: operations, disk, and time on this device by a short measurement.


_ENCODES_PER_PROMPT = 2  # of each prompt: to find one that is refused, and to draw


@dataclass(frozen=True)
class CostEstimate:
    """`description` is what there is to do, `disk_bytes` bytes by what they hold, `measurement` where `seconds` come from."""

    description: str
    flops: int
    disk_bytes: Mapping[str, int]
    seconds: float
    measurement: str


def estimate_collection(collector: CandidateCollector, folder: CandidateStore, shard: Shard) -> CostEstimate:
    """What a shard still has to do, by one prompt drawn and observed beside the folder, which stays as it is.

    Operations are those of one candidate, whoever observes it included; the time is that of a batch. Raises as
    `CandidateCollector.run` does before it begins, but only for the first prompt, and whatever the observer raises.
    """
    rows, candidates = collector.rows_left(folder, shard), collector.candidates
    disk_bytes = collector.bytes_of(rows)
    device, batch = collector.generator.device, min(candidates, collector.batch_size)
    encode = partial(
        collector.generator.encode_without_padding, collector.lines[0].prompt, collector.generator.defaults
    )
    encode()  # an instruction is read but once
    encode_flops = count_flops(encode)
    with scratch_folder(folder.path) as scratch:
        flops = count_flops(_trial(collector, 1, scratch / "counted"))  # and everything is warm
        seconds = measure_time(_trial(collector, batch, scratch / "timed"), device, rounds=1, warm_up=0).median / 1000
        rows_bytes = sum(path.stat().st_size for path in (scratch / "timed" / "rows").glob("*.parquet"))
    encode_seconds = measure_time(encode, device, rounds=1, warm_up=0).median / 1000
    prompts = -(-rows // candidates)
    return CostEstimate(
        description=f"{rows} candidates of {prompts} prompts",
        flops=prompts * _ENCODES_PER_PROMPT * encode_flops + rows * (flops - _ENCODES_PER_PROMPT * encode_flops),
        disk_bytes={RECORDED: disk_bytes, "the rows": rows_bytes * rows // batch},
        seconds=prompts * _ENCODES_PER_PROMPT * encode_seconds
        + rows * (seconds - _ENCODES_PER_PROMPT * encode_seconds) / batch,
        measurement=f"{batch} candidates drawn in {seconds:.2g} s",
    )


def _trial(collector: CandidateCollector, candidates: int, scratch: Path) -> partial[None]:
    """So many candidates of the first prompt; what a run measures for itself is measured already."""
    trial = replace(collector, lines=collector.lines[:1], candidates=candidates)
    _ = trial.recorded_bytes
    return partial(trial.run, CandidateStore(scratch), Shard(), ignore_progress)


_TIMED_BATCHES = 2  # batches, after one that warms up
_MAX_CHECKPOINTS = 3  # two that are kept, and the next one until it is whole
_OPTIMIZER_BYTES = 2 * 4  # bytes of an optimiser for each weight that is trained


def check_inputs(recipe: TrainingRecipe, folders: Sequence[Path], aligned: Path | None = None) -> None:
    """Look at what a run will read before a model is loaded. Raises CheckpointError for what is not there or not whole.

    Models of the hub are only checked for how they are spelt.
    """
    for folder in folders:
        CandidateStore(folder).check_complete()
    if aligned is not None:
        aligned_digest(aligned)
        read_config(aligned / RECIPE_FILE, RecipeModels)
    for model in (language_model_source(recipe), recipe.vision_tower):
        if model is not None:
            check_name(model)
    if recipe.tensorboard:
        check_tensorboard()


def estimate_alignment(
    recipe: AlignRecipe, generator: Generator, captions: Path, validation: Path, out: Path
) -> CostEstimate:
    """Of stage 1. Raises as `align` does before its first step."""
    data = TrainingData.of(captions, validation, generator)
    RunFolder(out, generator).check(recipe, data.inputs("align"))
    run = prepare_alignment(_with_few_statistics(recipe), generator, data).run
    return _estimate(run, out, generator.device, recipe.statistics_rows)


def estimate_verification(
    recipe: VerifyRecipe, generator: Generator, labels: Path, validation: Path, out: Path, aligned: Path | None
) -> CostEstimate:
    """Of stage 2. Raises as `verify` does before its first step."""
    data = TrainingData.of(labels, validation, generator)
    RunFolder(out, generator).check(recipe, data.inputs("verify", aligned_digest(aligned)))
    run = prepare_verification(_with_few_statistics(recipe), generator, data, aligned).run
    return _estimate(run, out, generator.device, 0 if aligned else recipe.statistics_rows)


def _with_few_statistics(recipe: RecipeT) -> RecipeT:
    return recipe.model_copy(update={"statistics_rows": 2, "tensorboard": False})


def _estimate(run: TrainingRun, out: Path, device: torch.device, statistics_rows: int) -> CostEstimate:
    recipe, num_rows, trial = run.recipe, len(run.training), _TrialRun(run, device)
    num_trained, num_standardized = recipe.steps * recipe.batch_size, min(statistics_rows, num_rows)
    num_validated = -(-recipe.steps // recipe.eval_steps) * len(run.validation)
    flops = num_trained * count_flops(trial.train_one) + num_validated * count_flops(partial(trial.predict, 1))
    flops += num_standardized * count_flops(partial(trial.load_batch, 1))
    with scratch_folder(out) as folder:
        seconds = run.time_batches(folder, device, _TIMED_BATCHES)
    load_seconds, predict_seconds = (
        measure_time(partial(step, run.batch_size), device, rounds=1, warm_up=0).median / 1000
        for step in (trial.load_batch, trial.predict)
    )
    return CostEstimate(
        description=f"{recipe.steps} steps of {recipe.batch_size} candidates, each of {num_rows} seen {num_trained / num_rows:.2g} times",
        flops=flops,
        disk_bytes=_bytes_on_disk(run),
        seconds=recipe.steps * recipe.gradient_accumulation_steps * seconds
        + (num_standardized * load_seconds + num_validated * predict_seconds) / run.batch_size,
        measurement=f"{_TIMED_BATCHES} batches of {run.batch_size} candidates learnt from in {_TIMED_BATCHES * seconds:.2g} s",
    )


def _bytes_on_disk(run: TrainingRun) -> dict[str, int]:
    weights = run.module.state_dict().values()
    trained = sum(weight.numel() for weight in run.module.parameters() if weight.requires_grad)
    checkpoint = sum(weight.nbytes for weight in weights) + trained * _OPTIMIZER_BYTES
    verifier = sum(weight.numel() for weight in weights) * resolve_dtype(run.recipe.save_dtype).itemsize
    return {"checkpoints, for the time of the run,": _MAX_CHECKPOINTS * checkpoint, "the verifier": verifier}


@dataclass(frozen=True)
class _TrialRun:
    """Work on the first rows of a run."""

    run: TrainingRun
    device: torch.device

    def train_one(self) -> None:
        """Forward and backward."""
        batch = self.load_batch(1)
        labels = batch.pop("labels")
        self.run.module.train()  # as the trainer has it: checkpointing reads everything twice
        self.run.loss(self.run.module(**batch), labels).backward()

    @torch.no_grad()
    def predict(self, count: int) -> None:
        """Forward, in the recipe's precision."""
        precision, batch = resolve_dtype(self.run.recipe.precision), self.load_batch(count)
        batch.pop("labels")
        with torch.autocast(self.device.type, precision, enabled=precision != torch.float32):
            self.run.module(**batch)

    def load_batch(self, count: int) -> dict[str, Tensor]:
        """A batch: its states from the disk, or drawn anew."""
        rows = self.run.training
        batch = collate_rows([rows[row % len(rows)] for row in range(count)])
        return {name: part.to(self.device) for name, part in batch.items()}
