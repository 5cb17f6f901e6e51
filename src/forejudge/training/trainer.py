"""One trainer for both stages and every verifier input: `transformers.Trainer` with our losses, resumable and quiet.

Its checkpoints stay in the run's folder until `output` has written the verifier.
"""

import json
import os
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from math import isfinite
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, NonNegativeInt
from safetensors.torch import load_file
from torch import Tensor, nn
from transformers import (
    EarlyStoppingCallback,
    EvalPrediction,
    PrinterCallback,
    Trainer,
    TrainerCallback,
    TrainingArguments,
)

from forejudge.checkpoint import library_output_errors, quiet_libraries
from forejudge.config_files import read_json_lines
from forejudge.device import is_main_process, launched_processes, resolve_dtype, resolve_precision
from forejudge.digests import CHECKPOINTS
from forejudge.errors import InvalidRequest, MissingExtra
from forejudge.files import check_room, exclusive_lock, is_file, write_text
from forejudge.progress import Progress, ProgressCallback, Stopwatch
from forejudge.training.checkpoints import MAX_CHECKPOINTS, Checkpoint, CheckpointKeeper, newest_checkpoint
from forejudge.training.config import TrainingRecipe
from forejudge.training.dataset import IGNORE_INDEX, RowDataset, collate_rows
from forejudge.training.model import check_finite

METRICS_FILE = "metrics.jsonl"
_LOGGING_STEPS = 20  # steps
_OPTIMIZER_BYTES = 2 * 4  # of AdamW, for each trained weight

SummedLoss = Callable[[Mapping[str, Tensor], Tensor], Tensor]
"""(outputs, labels) -> loss summed over the items of a batch."""


@dataclass(frozen=True)
class TrainingRun:
    """A module in training with its data and loss.

    `best_metric` names the one of `metrics` (higher is better), or "loss" (lower is better), that chooses the best
    checkpoint.
    """

    stage_name: str
    module: nn.Module
    recipe: TrainingRecipe
    training: RowDataset
    validation: RowDataset
    loss: SummedLoss
    best_metric: str = "loss"
    metrics: Callable[[np.ndarray], dict[str, float]] | None = None

    def train(self, folder: Path, device: torch.device, report: ProgressCallback) -> bool:
        """Train `module` in place to its best checkpoint, continuing from the newest complete one.

        Returns whether this process is the one that writes. Raises InvalidRequest while another run uses the folder.
        """
        checkpoints = folder / CHECKPOINTS
        with exclusive_lock(checkpoints / "lock") if is_main_process() else nullcontext(), quiet_libraries():
            newest = newest_checkpoint(checkpoints)
            trainer = self._trainer(folder, device, self._callbacks(folder, newest, report))
            if newest is not None and newest.finished:  # the trainer would take another step
                self.module.load_state_dict(load_file(newest.best.weights))
            else:
                with library_output_errors(checkpoints):
                    trainer.train(resume_from_checkpoint=None if newest is None else str(newest.path))
            trainer.accelerator.wait_for_everyone()  # whoever writes removes the checkpoints
        return is_main_process()

    def check(self, folder: Path, device: torch.device) -> None:
        """Raise what `train` would raise before its first step, and OutputError where the disk is too small.

        Checkpoints that are there already take none of the free space.
        """
        self._arguments(folder, device)
        needed = sum(self.disk_bytes.values()) - sum(
            path.stat().st_size for path in (folder / CHECKPOINTS).rglob("*") if is_file(path)
        )
        check_room(folder, needed, " and ".join(self.disk_bytes))

    @property
    def disk_bytes(self) -> dict[str, int]:
        """Bytes of all that a run stores, by what it is."""
        weights = self.module.state_dict().values()
        trained = sum(weight.numel() for weight in self.module.parameters() if weight.requires_grad)
        checkpoint = sum(weight.nbytes for weight in weights) + trained * _OPTIMIZER_BYTES
        verifier = sum(weight.numel() for weight in weights) * resolve_dtype(self.recipe.save_dtype).itemsize
        return {"checkpoints, for the time of the run,": MAX_CHECKPOINTS * checkpoint, "the verifier": verifier}

    def time_batches(self, folder: Path, device: torch.device, count: int) -> float:
        """Return the mean seconds per batch in one process, over `count` batches after a warm-up one.

        Each is followed by an optimizer step. Nothing is evaluated or stored; `module` is changed.
        """
        times = BatchTimes()
        overrides: dict[str, Any] = dict.fromkeys(("eval_strategy", "save_strategy", "logging_strategy"), "no")
        overrides |= {"max_steps": count + 1, "gradient_accumulation_steps": 1, "load_best_model_at_end": False}
        with quiet_libraries():
            self._trainer(folder, device, [times], **overrides, report_to=[]).train()
        return times.mean

    def _callbacks(self, folder: Path, start: Checkpoint | None, report: ProgressCallback) -> list[TrainerCallback]:
        callbacks: list[TrainerCallback] = [
            MetricsLog(folder / METRICS_FILE, self.stage_name, report),
            DivergenceCheck(resolve_dtype(self.recipe.save_dtype)),
            CheckpointKeeper(folder / CHECKPOINTS, start),
        ]
        if self.recipe.early_stopping_patience is not None:
            callbacks.append(EarlyStoppingCallback(self.recipe.early_stopping_patience))
        return callbacks

    def _trainer(
        self, folder: Path, device: torch.device, callbacks: list[TrainerCallback], **overrides: Any
    ) -> Trainer:
        arguments = TrainingArguments(**{**self._arguments(folder, device), **overrides})
        arguments._n_gpu = min(
            arguments.n_gpu, 1
        )  # one GPU per process: the trainer would take all, with larger batches
        trainer = Trainer(
            model=self.module,
            args=arguments,
            train_dataset=self.training,
            eval_dataset=self.validation,
            data_collator=collate_rows,
            compute_loss_func=self._loss,
            compute_metrics=self._compute_metrics if self.metrics else None,
            callbacks=callbacks,
        )
        trainer.remove_callback(PrinterCallback)
        return trainer

    def _arguments(self, folder: Path, device: torch.device) -> dict[str, Any]:
        recipe = self.recipe
        precision = resolve_precision(recipe.precision, device)
        if precision == torch.float16 and device.type == "cpu":
            raise InvalidRequest("precision = float16 needs a GPU: train in bfloat16 or float32")
        _, num_processes = launched_processes()
        if recipe.tensorboard:
            check_tensorboard()
            os.environ["TENSORBOARD_LOGGING_DIR"] = str(folder / "tensorboard")
        intervals: dict[str, Any] = {"eval": recipe.eval_steps, "save": recipe.eval_steps, "logging": _LOGGING_STEPS}
        schedule = {f"{event}_strategy": "steps" for event in intervals}
        schedule |= {f"{event}_steps": interval for event, interval in intervals.items()}
        return dict(
            output_dir=str(folder / CHECKPOINTS),
            max_steps=recipe.steps,
            per_device_train_batch_size=self.batch_size // self.training.candidates,
            per_device_eval_batch_size=self.batch_size,
            gradient_accumulation_steps=recipe.gradient_accumulation_steps,
            learning_rate=recipe.learning_rate,
            lr_scheduler_type="cosine",
            warmup_steps=recipe.warmup_steps,
            weight_decay=recipe.weight_decay,
            adam_beta2=recipe.adam_beta2,
            max_grad_norm=recipe.max_grad_norm,
            bf16=precision == torch.bfloat16,
            fp16=precision == torch.float16,
            use_cpu=device.type == "cpu",
            ddp_backend="gloo" if device.type == "cpu" and num_processes > 1 else None,
            seed=recipe.seed,
            data_seed=recipe.seed,
            restore_callback_states_from_checkpoint=True,  # evaluations without progress
            load_best_model_at_end=True,
            metric_for_best_model=self.best_metric,
            greater_is_better=self.best_metric != "loss",
            prediction_loss_only=self.metrics is None,
            report_to=["tensorboard"] if recipe.tensorboard else [],
            remove_unused_columns=False,
            label_names=["labels"],
            dataloader_pin_memory=device.type == "cuda",
            disable_tqdm=True,
            **schedule,
        )

    @property
    def step_size(self) -> int:
        """Candidates per optimizer step, over all processes and accumulated batches."""
        _, num_processes = launched_processes()
        return self.batch_size * num_processes * self.recipe.gradient_accumulation_steps

    @property
    def batch_size(self) -> int:
        """Candidates per batch and process, in whole groups. Raises InvalidRequest if a step does not divide evenly."""
        recipe, group = self.recipe, self.training.candidates
        _, num_processes = launched_processes()
        parts = num_processes * recipe.gradient_accumulation_steps
        if recipe.batch_size % parts:
            raise InvalidRequest(
                f"batch_size = {recipe.batch_size} does not divide by {num_processes} processes x "
                f"{recipe.gradient_accumulation_steps} accumulated batches: change one of them"
            )
        return max(recipe.batch_size // parts // group, 1) * group

    def _loss(self, outputs: Mapping[str, Tensor], labels: Tensor, num_items_in_batch: Tensor | None = None) -> Tensor:
        items = num_items_in_batch if num_items_in_batch is not None else labels.ne(IGNORE_INDEX).sum()
        return self.loss(outputs, labels) / items

    def _compute_metrics(self, prediction: EvalPrediction) -> dict[str, float]:
        assert self.metrics is not None
        return self.metrics(np.asarray(prediction.predictions))


class LoggedMetrics(BaseModel):
    """One line of metrics.jsonl: a step, and any metrics."""

    model_config = ConfigDict(extra="allow", strict=True)

    step: NonNegativeInt


class MetricsLog(TrainerCallback):
    """Logs metrics as JSON lines, none twice after a resumption, and reports progress."""

    def __init__(self, path: Path, stage_name: str, report: ProgressCallback) -> None:
        self.path, self.stage_name, self.report = path, stage_name, report

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Drop the lines of steps that will be repeated."""
        self.stopwatch, self.note = Stopwatch(self.stage_name, state.global_step, state.max_steps), ""
        logged = [entry for entry in read_json_lines(self.path, LoggedMetrics) if entry.step <= state.global_step]
        if state.is_world_process_zero:
            write_text(self.path, "".join(f"{json.dumps(entry.model_dump())}\n" for entry in logged))

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, Any] | None = None, **_: Any) -> None:
        """Append a line."""
        metrics = dict(logs or {})
        if "loss" in metrics:
            self.note = f"loss {metrics['loss']:.3f}"
        if state.is_world_process_zero:
            with self.path.open("a", encoding="utf-8") as file:
                file.write(json.dumps({"step": state.global_step, **metrics}) + "\n")

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Report progress. The last step is evaluated too: it may be the best checkpoint."""
        control.should_evaluate |= state.global_step == state.max_steps
        progress: Progress = self.stopwatch.at(state.global_step, self.note)
        if state.is_world_process_zero:
            self.report(progress)


class DivergenceCheck(TrainerCallback):
    """Ends a training whose loss or weights, in the dtype they are stored in, are not finite.

    It checks before a checkpoint is written, so every checkpoint on disk is finite.
    """

    def __init__(self, save_dtype: torch.dtype) -> None:
        self.save_dtype = save_dtype

    def on_evaluate(self, args: Any, state: Any, control: Any, **inputs: Any) -> None:
        """Raise InvalidRequest if the training diverged."""
        loss = inputs["metrics"]["eval_loss"]
        if not isfinite(loss):
            raise InvalidRequest(
                f"training diverged by step {state.global_step}, the validation loss is {loss}: lower learning_rate "
                "or change precision, with another --out; earlier checkpoints are kept"
            )
        check_finite(inputs["model"], self.save_dtype)


class BatchTimes(TrainerCallback):
    """Time from the end of one step to the end of the next, loading included; the first step is warm-up."""

    def __init__(self) -> None:
        self._ends: list[float] = []

    @property
    def mean(self) -> float:
        """Mean seconds per step, without the first."""
        return (self._ends[-1] - self._ends[0]) / (len(self._ends) - 1)

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Record the time once the device is idle."""
        if args.device.type != "cpu":
            torch.accelerator.synchronize(args.device)
        self._ends.append(perf_counter())


def check_tensorboard() -> None:
    """Raise MissingExtra if tensorboard is not installed."""
    from importlib.util import find_spec

    if find_spec("tensorboard") is None:
        raise MissingExtra("tensorboard", "tensorboard")
