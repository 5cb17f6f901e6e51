"""How fast a device multiplies matrices and moves bytes, measured: what the floors of all work are made of."""

from functools import partial

import torch
from pydantic import BaseModel, ConfigDict

from forejudge.profiling.stage_timing import timed

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
        flops_per_second=max(_product_rate(side, device, dtype) for side in _SIDES[kind]),
        bytes_per_second=_copy_rate(_COPIED_BYTES[kind], device),
    )


def _product_rate(side: int, device: torch.device, dtype: torch.dtype) -> float:
    left, right = (torch.randn(side, side, device=device, dtype=dtype) for _ in range(2))
    milliseconds = timed(partial(torch.matmul, left, right), device, _ROUNDS, _WARM_UP).fastest
    return 2 * side**3 / milliseconds * 1000


def _copy_rate(size: int, device: torch.device) -> float:
    """Of a copy, which reads every byte and writes it."""
    source = torch.ones(size, dtype=torch.uint8, device=device)
    milliseconds = timed(partial(torch.empty_like(source).copy_, source), device, _ROUNDS, _WARM_UP).fastest
    return 2 * size / milliseconds * 1000
