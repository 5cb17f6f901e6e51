"""How long pieces of work take: warmed up, then in rounds, in which different ones take turns.

What disturbs the machine for a while then disturbs all alike.
"""

from collections.abc import Callable, Hashable, Mapping
from time import perf_counter
from typing import Self, TypeVar

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict

Work = Callable[[], object]
Key = TypeVar("Key", bound=Hashable)


class Timing(BaseModel):
    """Milliseconds over so many rounds: the median, and the quartiles that hold half of them."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    median: float
    lower_quartile: float
    upper_quartile: float
    fastest: float
    rounds: int

    @classmethod
    def of(cls, milliseconds: list[float]) -> Self:
        """Of the rounds."""
        lower, median, upper = np.quantile(milliseconds, (0.25, 0.5, 0.75)).tolist()
        return cls(
            median=median,
            lower_quartile=lower,
            upper_quartile=upper,
            fastest=min(milliseconds),
            rounds=len(milliseconds),
        )


def timed(work: Work, device: torch.device, rounds: int, warm_up: int) -> Timing:
    """One piece of work; `warm_up` rounds before are not counted."""
    return timed_in_turns({"": work}, device, rounds, warm_up)[""]


def timed_in_turns(
    works: Mapping[Key, Work],
    device: torch.device,
    rounds: int,
    warm_up: int,
    on_round: Callable[[int], None] = lambda done: None,
) -> dict[Key, Timing]:
    """Each once in every round; `warm_up` rounds before are not counted. `on_round` is told how many are done."""
    took: dict[Key, list[float]] = {key: [] for key in works}
    for done in range(1, warm_up + rounds + 1):
        for key, work in works.items():
            took[key].append(_milliseconds(work, device))
        on_round(done)
    return {key: Timing.of(milliseconds[warm_up:]) for key, milliseconds in took.items()}


def _milliseconds(work: Work, device: torch.device) -> float:
    """Of one run, from an idle device to an idle device; on CUDA by the device's own clock."""
    if device.type == "cuda":
        started, ended = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        stream = torch.cuda.current_stream(device)
        torch.cuda.synchronize(device)
        started.record(stream)
        work()
        ended.record(stream)
        torch.cuda.synchronize(device)
        return started.elapsed_time(ended)
    before = perf_counter()
    work()
    if device.type != "cpu":
        torch.accelerator.synchronize(device)
    return 1000 * (perf_counter() - before)
