"""How fast a device multiplies matrices and moves bytes, measured: what the floors of all work are made of."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import partial

import torch
from pydantic import BaseModel, ConfigDict

from forejudge.profiling.measure import measure_time
from forejudge.profiling.stages import StageCost

_SIDES = {"cuda": (2048, 4096, 8192), "cpu": (512, 1024)}  # of square matrices
_COPIED_BYTES = {"cuda": 2**30, "cpu": 2**27}  # more than caches hold
_ROUNDS, _WARM_UP = 10, 3


class DeviceRates(BaseModel):
    """The best that was seen: operations a second of matrix products in a dtype, and bytes a second read or written."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    flops_per_second: float
    bytes_per_second: float


def device_rates(device: torch.device, dtype: torch.dtype) -> DeviceRates:
    """Measure them; takes a second or two."""
    kind = device.type if device.type in _SIDES else "cuda"
    return DeviceRates(
        flops_per_second=max(_matmul_rate(side, device, dtype) for side in _SIDES[kind]),
        bytes_per_second=_copy_rate(_COPIED_BYTES[kind], device),
    )


def _matmul_rate(side: int, device: torch.device, dtype: torch.dtype) -> float:
    left, right = (torch.randn(side, side, device=device, dtype=dtype) for _ in range(2))
    milliseconds = measure_time(partial(torch.matmul, left, right), device, _ROUNDS, _WARM_UP).fastest
    return 2 * side**3 / milliseconds * 1000


def _copy_rate(size: int, device: torch.device) -> float:
    """Of a copy, which reads every byte and writes it."""
    source = torch.ones(size, dtype=torch.uint8, device=device)
    milliseconds = measure_time(partial(torch.empty_like(source).copy_, source), device, _ROUNDS, _WARM_UP).fastest
    return 2 * size / milliseconds * 1000


# FOLDED: The least time that work can take on a device. Pure functions.


def roofline_ms(cost: StageCost, batch: int, weight_bytes: int, rates: DeviceRates) -> float:
    """Of a stage for a batch: its operations at the rate of matrix products, or its weights read once, if that is more.

    `weight_bytes` are those of one weight. What else is read and written is left out, so no work is as fast as this.
    """
    compute_seconds = batch * cost.flops / rates.flops_per_second
    memory_seconds = cost.weights * weight_bytes / rates.bytes_per_second
    return 1000 * max(compute_seconds, memory_seconds)


# FOLDED: What a whole run consists of: stages, run so many times, each for a batch. Pure functions.


@dataclass(frozen=True)
class StageRun:
    """A stage run `repeats` times over, each for `batch` candidates."""

    stage: str
    batch: int
    repeats: int = 1


def total_flops(runs: Iterable[StageRun], costs: Mapping[str, StageCost]) -> int:
    """Floating-point operations of all of them."""
    return sum(run.repeats * run.batch * costs[run.stage].flops for run in runs)


def total_roofline_ms(
    runs: Iterable[StageRun], costs: Mapping[str, StageCost], weight_bytes: int, rates: DeviceRates
) -> float:
    """Their floors in milliseconds, one after the other; `weight_bytes` are those of one weight."""
    return sum(run.repeats * roofline_ms(costs[run.stage], run.batch, weight_bytes, rates) for run in runs)
