"""What a stage of the training amounts to: batches of it are learnt from and answered, and nothing is kept.

It is always the whole of it that is reckoned, also where a part is done already.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from forejudge.candidates.collect import RECORDED, CandidateDrawing
from forejudge.candidates.store import RowFolder
from forejudge.device import resolve_dtype
from forejudge.files import trial_folder
from forejudge.generators.base import Generator
from forejudge.hub import check_name
from forejudge.profiling.measure import count_flops, timed
from forejudge.progress import Shard, report_nothing
from forejudge.training.align import prepared_alignment
from forejudge.training.config import AlignRecipe, Chosen, TrainingRecipe, VerifyRecipe, read_recipe
from forejudge.training.dataset import TrainingData, collated
from forejudge.training.model import digest_of, language_model_source
from forejudge.training.output import Output
from forejudge.training.trainer import TrainingRun, need_tensorboard
from forejudge.training.verify import prepared_verification

# FOLDED: What long work amounts to before it is begun: operations, disk, and time on this device by a short measurement.


_ENCODINGS = 2  # of each prompt: to find one that is refused, and to draw


@dataclass(frozen=True)
class Work:
    """`amount` is what there is to do, `stored` bytes by what they hold, `measured` where `seconds` come from."""

    amount: str
    flops: int
    stored: Mapping[str, int]
    seconds: float
    measured: str


def drawing_work(drawing: CandidateDrawing, folder: RowFolder, shard: Shard) -> Work:
    """What a shard still has to do, by one prompt drawn and observed beside the folder, which stays as it is.

    Operations are those of one candidate, whoever observes it included; the time is that of a batch. Raises as
    `CandidateDrawing.run` does before it begins, but only for the first prompt, and whatever the observer raises.
    """
    rows, candidates = drawing.rows_left(folder, shard), drawing.candidates
    stored = drawing.bytes_of(rows)
    device, batch = drawing.generator.device, min(candidates, drawing.batch_size)
    encode = partial(drawing.generator.encode_without_padding, drawing.lines[0].prompt, drawing.generator.defaults)
    encode()  # an instruction is read but once
    encode_flops = count_flops(encode)
    with trial_folder(folder.folder) as place:
        flops = count_flops(_trial(drawing, 1, place / "counted"))  # and everything is warm
        seconds = timed(_trial(drawing, batch, place / "timed"), device, rounds=1, warm_up=0).median / 1000
        rows_bytes = sum(path.stat().st_size for path in (place / "timed" / "rows").glob("*.parquet"))
    encode_seconds = timed(encode, device, rounds=1, warm_up=0).median / 1000
    prompts = -(-rows // candidates)
    return Work(
        amount=f"{rows} candidates of {prompts} prompts",
        flops=prompts * _ENCODINGS * encode_flops + rows * (flops - _ENCODINGS * encode_flops),
        stored={RECORDED: stored, "the rows": rows_bytes * rows // batch},
        seconds=prompts * _ENCODINGS * encode_seconds + rows * (seconds - _ENCODINGS * encode_seconds) / batch,
        measured=f"{batch} candidates drawn in {seconds:.2g} s",
    )


def _trial(drawing: CandidateDrawing, candidates: int, place: Path) -> partial[None]:
    """So many candidates of the first prompt; what a run measures for itself is measured already."""
    trial = replace(drawing, lines=drawing.lines[:1], candidates=candidates)
    _ = trial.recorded_bytes
    return partial(trial.run, RowFolder(place), Shard(), report_nothing)


_TIMED = 2  # batches, after one that warms up
_CHECKPOINTS = 3  # two that are kept, and the next one until it is whole
_MOMENTS = 2 * 4  # bytes of an optimiser for each weight that is trained


def check_inputs(recipe: TrainingRecipe, folders: Sequence[Path], aligned: Path | None = None) -> None:
    """Look at what a run will read before a model is loaded. Raises CheckpointError for what is not there or not whole.

    Models of the hub are only checked for how they are spelt.
    """
    for folder in folders:
        RowFolder(folder).check_complete()
    if aligned is not None:
        digest_of(aligned)
        read_recipe(aligned)
    for model in (language_model_source(recipe), recipe.vision_tower):
        if model is not None:
            check_name(model)
    if recipe.tensorboard:
        need_tensorboard()


def alignment_work(recipe: AlignRecipe, generator: Generator, captions: Path, validation: Path, out: Path) -> Work:
    """Of stage 1. Raises as `align` does before its first step."""
    data = TrainingData.of(captions, validation, generator)
    Output(out, generator).check(recipe, data.digests)
    run = prepared_alignment(_with_few_statistics(recipe), generator, data).run
    return _measured(run, out, generator.device, recipe.statistics_rows)


def verification_work(
    recipe: VerifyRecipe, generator: Generator, labels: Path, validation: Path, out: Path, aligned: Path | None
) -> Work:
    """Of stage 2. Raises as `verify` does before its first step."""
    data = TrainingData.of(labels, validation, generator)
    Output(out, generator).check(recipe, {**data.digests, "aligned": digest_of(aligned)})
    run = prepared_verification(_with_few_statistics(recipe), generator, data, aligned).run
    return _measured(run, out, generator.device, 0 if aligned else recipe.statistics_rows)


def _with_few_statistics(recipe: Chosen) -> Chosen:
    return recipe.model_copy(update={"statistics_rows": 2, "tensorboard": False})


def _measured(run: TrainingRun, out: Path, device: torch.device, statistics_rows: int) -> Work:
    recipe, seen, trial = run.recipe, len(run.training), _Trial(run, device)
    learnt, standardised = recipe.steps * recipe.batch_size, min(statistics_rows, seen)
    answered = -(-recipe.steps // recipe.evaluate_every) * len(run.validation)
    flops = learnt * count_flops(trial.learn_one) + answered * count_flops(partial(trial.answer, 1))
    flops += standardised * count_flops(partial(trial.read, 1))
    with trial_folder(out) as folder:
        seconds = run.time_batches(folder, device, _TIMED)
    read_seconds, answer_seconds = (
        timed(partial(work, run.batch_size), device, rounds=1, warm_up=0).median / 1000
        for work in (trial.read, trial.answer)
    )
    return Work(
        amount=f"{recipe.steps} steps of {recipe.batch_size} candidates, each of {seen} seen {learnt / seen:.2g} times",
        flops=flops,
        stored=_stored(run),
        seconds=recipe.steps * recipe.accumulated_batches * seconds
        + (standardised * read_seconds + answered * answer_seconds) / run.batch_size,
        measured=f"{_TIMED} batches of {run.batch_size} candidates learnt from in {_TIMED * seconds:.2g} s",
    )


def _stored(run: TrainingRun) -> dict[str, int]:
    weights = run.module.state_dict().values()
    trained = sum(weight.numel() for weight in run.module.parameters() if weight.requires_grad)
    checkpoint = sum(weight.nbytes for weight in weights) + trained * _MOMENTS
    verifier = sum(weight.numel() for weight in weights) * resolve_dtype(run.recipe.stored_in).itemsize
    return {"checkpoints, for the time of the run,": _CHECKPOINTS * checkpoint, "the verifier": verifier}


@dataclass(frozen=True)
class _Trial:
    """Work on the first rows of a run."""

    run: TrainingRun
    device: torch.device

    def learn_one(self) -> None:
        """Forward and backward."""
        batch = self.read(1)
        labels = batch.pop("labels")
        self.run.module.train()  # as the trainer has it: checkpointing reads everything twice
        self.run.loss(self.run.module(**batch), labels).backward()

    @torch.no_grad()
    def answer(self, count: int) -> None:
        """Forward, in the recipe's precision."""
        precision, batch = resolve_dtype(self.run.recipe.precision), self.read(count)
        batch.pop("labels")
        with torch.autocast(self.device.type, precision, enabled=precision != torch.float32):
            self.run.module(**batch)

    def read(self, count: int) -> dict[str, Tensor]:
        """A batch: its states from the disk, or drawn anew."""
        rows = self.run.training
        batch = collated([rows[row % len(rows)] for row in range(count)])
        return {name: part.to(self.device) for name, part in batch.items()}
