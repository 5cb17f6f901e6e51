"""Time by stage. On a GPU a stage ends when its work has ended, not when it was asked for."""

from collections.abc import Iterator
from contextlib import contextmanager
from time import perf_counter

import torch


class StageClock:
    """Adds up seconds per stage; `elapsed` counts from when the clock was made."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._started = perf_counter()
        self.seconds: dict[str, float] = {}

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Count what happens inside to `name`."""
        started = perf_counter()
        try:
            yield
        finally:
            if self._device.type != "cpu":
                torch.accelerator.synchronize(self._device)
            passed = perf_counter() - started
            self.seconds[name] = self.seconds.get(name, 0.0) + passed

    @property
    def elapsed(self) -> float:
        """Seconds since the clock was made."""
        return perf_counter() - self._started
