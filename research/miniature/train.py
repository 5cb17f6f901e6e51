"""One resumable training loop for every part of the miniature.

Each step's data is a function of (seed, step), and a checkpoint holds everything else, so that a run that was killed
and resumed ends with the weights of an uninterrupted one.
"""

import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar, cast

import torch
from pydantic import BaseModel, ConfigDict, PositiveFloat, PositiveInt
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from forejudge.checkpoint import checkpoint_errors
from forejudge.progress import ProgressCallback, Stopwatch

LossAtStep = Callable[[int], Tensor]
ModuleT = TypeVar("ModuleT", bound=nn.Module)


class TrainingSettings(BaseModel):
    """Training settings of one part. The learning rate rises linearly, then falls as a cosine."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    steps: PositiveInt
    batch_size: PositiveInt
    learning_rate: PositiveFloat
    warmup_steps: PositiveInt = 200
    weight_decay: float = 0.01
    ema_decay: float = 0.999
    checkpoint_seconds: float = 60.0

    def learning_rate_factor(self, step: int) -> float:
        """Return the factor on the learning rate, in [0, 1]."""
        done = min(step / self.steps, 1.0)
        return min((step + 1) / self.warmup_steps, 0.5 * (1 + math.cos(math.pi * done)))


def generator_for_step(seed: int, step: int) -> torch.Generator:
    """Return the random generator of a step."""
    return torch.Generator().manual_seed(seed * 1_000_003 + step)


def train(
    part: str,
    module: ModuleT,
    loss_at_step: LossAtStep,
    settings: TrainingSettings,
    checkpoint: Path,
    report: ProgressCallback,
) -> tuple[ModuleT, float]:
    """Train `module`, resuming from `checkpoint` if it exists; return its averaged copy and the seconds it took."""
    run = _Run(module, settings, checkpoint)
    stopwatch, seconds_before = Stopwatch(part, run.step, settings.steps), run.seconds
    while run.step < settings.steps:
        loss = run.advance(loss_at_step)
        run.seconds = seconds_before + stopwatch.seconds
        if run.step % 20 == 0:
            report(stopwatch.at(run.step, f"loss {float(loss):.3f}"))
        run.save_when_due()
    run.save()
    return cast(ModuleT, run.ema_model.module), run.seconds


class _Run:
    """Mutable state of one training run."""

    def __init__(self, module: nn.Module, settings: TrainingSettings, checkpoint: Path) -> None:
        self.module, self.settings, self.checkpoint = module, settings, checkpoint
        self.optimizer = torch.optim.AdamW(
            module.parameters(),
            lr=settings.learning_rate,
            weight_decay=settings.weight_decay,
            betas=(0.9, 0.99),
        )
        self.scheduler = torch.optim.lr_scheduler.LambdaLR(self.optimizer, settings.learning_rate_factor)
        average = get_ema_multi_avg_fn(settings.ema_decay)
        self.ema_model = AveragedModel(module, multi_avg_fn=average, use_buffers=False)
        self.step, self.seconds = 0, 0.0
        self._saved_at = time.monotonic()
        if checkpoint.exists():
            self._restore()

    def advance(self, loss_at_step: LossAtStep) -> Tensor:
        loss = loss_at_step(self.step)
        loss.backward()
        nn.utils.clip_grad_norm_(self.module.parameters(), 1.0)
        self.optimizer.step()
        self.scheduler.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.ema_model.update_parameters(self.module)
        self.step += 1
        return loss.detach()

    def save_when_due(self) -> None:
        if time.monotonic() - self._saved_at > self.settings.checkpoint_seconds:
            self.save()

    def save(self) -> None:
        """Write the checkpoint to a temporary file and move it into place."""
        temporary = self.checkpoint.with_suffix(".unfinished")
        state = {name: part.state_dict() for name, part in self._parts().items()}
        torch.save(state | {"step": self.step, "seconds": self.seconds}, temporary)
        temporary.replace(self.checkpoint)
        self._saved_at = time.monotonic()

    def _restore(self) -> None:
        with checkpoint_errors(self.checkpoint):
            state = torch.load(self.checkpoint, weights_only=True)
        for name, part in self._parts().items():
            part.load_state_dict(state[name])
        self.step, self.seconds = state["step"], state["seconds"]

    def _parts(self) -> dict[str, Any]:
        return {
            "module": self.module,
            "optimizer": self.optimizer,
            "scheduler": self.scheduler,
            "average": self.ema_model,
        }
