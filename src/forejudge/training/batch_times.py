"""How long a trainer takes from one step to the next."""

from time import perf_counter
from typing import Any

import torch
from transformers import TrainerCallback


class BatchTimes(TrainerCallback):
    """From the end of one step to that of the next, its batch made meanwhile; the first step warms up."""

    def __init__(self) -> None:
        self._ends: list[float] = []

    @property
    def mean(self) -> float:
        """Seconds, over all steps but the first."""
        return (self._ends[-1] - self._ends[0]) / (len(self._ends) - 1)

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Read the clock once the device is idle."""
        if args.device.type != "cpu":
            torch.accelerator.synchronize(args.device)
        self._ends.append(perf_counter())
