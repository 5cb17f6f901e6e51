"""Time by stage. A GPU's own clock is read for its work, so that nobody waits for a stage to end."""

from collections.abc import Iterator
from contextlib import contextmanager
from time import perf_counter
from typing import Any

import torch


class StageClock:
    """Adds up seconds per stage; `elapsed` counts from when the clock was made.

    On a CUDA device a stage lasts until its work is done, also where that was only asked for; on others of that kind
    the end of a stage waits for it.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._started = perf_counter()
        self._stages: list[tuple[str, Any, Any]] = []  # with the marks at both ends

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Count what happens inside to `name`."""
        began = self._mark()
        try:
            yield
        finally:
            self._stages.append((name, began, self._mark()))

    @property
    def seconds(self) -> dict[str, float]:
        """By stage; waits for work that is not done yet."""
        found: dict[str, float] = {}
        for name, began, ended in self._stages:
            found[name] = found.get(name, 0.0) + self._between(began, ended)
        return found

    @property
    def elapsed(self) -> float:
        """Seconds since the clock was made."""
        return perf_counter() - self._started

    def _mark(self) -> Any:
        if self._device.type == "cuda":
            event = torch.cuda.Event(enable_timing=True)
            event.record(torch.cuda.current_stream(self._device))
            return event
        if self._device.type != "cpu":
            torch.accelerator.synchronize(self._device)
        return perf_counter()

    def _between(self, began: Any, ended: Any) -> float:
        if self._device.type != "cuda":
            return float(ended - began)
        ended.synchronize()
        return float(began.elapsed_time(ended)) / 1000
