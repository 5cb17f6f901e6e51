"""Roofline: the least time that work can take on a device, from its FLOPs, its weights and the measured rates."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import partial

import torch

from forejudge.profiling.figures import DeviceRates
from forejudge.profiling.measure import StageCost, measure_time

_SIDES = {"cuda": (2048, 4096, 8192), "cpu": (512, 1024)}  # of the square matrices multiplied
_COPIED_BYTES = {"cuda": 2**30, "cpu": 2**27}  # more than caches hold
_ROUNDS, _WARM_UP = 10, 3


def device_rates(device: torch.device, dtype: torch.dtype) -> DeviceRates:
    """Measure the device's rates; takes a second or two."""
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
    """Measure bytes per second of a copy, which reads and writes every byte."""
    source = torch.ones(size, dtype=torch.uint8, device=device)
    milliseconds = measure_time(partial(torch.empty_like(source).copy_, source), device, _ROUNDS, _WARM_UP).fastest
    return 2 * size / milliseconds * 1000


def roofline_ms(cost: StageCost, batch: int, rates: DeviceRates) -> float:
    """Return the longer of a batch's FLOPs at the rate of matrix products and its weights read once.

    Reads and writes of activations are left out, so no work is as fast as this.
    """
    compute_seconds = batch * cost.flops / rates.flops_per_second
    memory_seconds = cost.weight_bytes / rates.bytes_per_second
    return 1000 * max(compute_seconds, memory_seconds)


@dataclass(frozen=True)
class StageRun:
    """A stage run `repeats` times, each time for `batch` candidates."""

    stage: str
    batch: int
    repeats: int = 1


def total_flops(runs: Iterable[StageRun], costs: Mapping[str, StageCost]) -> int:
    """Add up the FLOPs of all runs."""
    return sum(run.repeats * run.batch * costs[run.stage].flops for run in runs)


def total_roofline_ms(runs: Iterable[StageRun], costs: Mapping[str, StageCost], rates: DeviceRates) -> float:
    """Add up the rooflines of all runs, in milliseconds."""
    return sum(run.repeats * roofline_ms(costs[run.stage], run.batch, rates) for run in runs)
