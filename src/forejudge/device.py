"""Devices and dtypes by name, exact float32, and detecting that memory ran out."""

import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from forejudge.errors import InvalidRequest, one_line

AUTO = "auto"
_AMPERE = (8, 0)  # compute capability
_CPU_BFLOAT16 = ("avx512_bf16", "amx_bf16", "bf16")  # instructions of x86, x86 and Arm
_LAUNCHER_VARIABLES = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")  # of torchrun and accelerate


def resolve_device(name: str | None) -> torch.device:
    """Return a device by name; None picks CUDA if present (one GPU per launched process), then MPS, then the CPU.

    Raises InvalidRequest for a device that is not available.
    """
    try:
        with warnings.catch_warnings(action="ignore"):  # of names that torch gave up
            device = torch.device(_default_device() if name is None else name)
            torch.empty(0, device=device)
    except (RuntimeError, AssertionError, ImportError, ValueError):
        device = torch.device("meta")
    if device.type == "meta":  # it holds no values
        raise InvalidRequest(
            f"device {one_line(repr(name), 40)} is not available here: use {' or '.join(_available_devices())}"
        )
    return device


def _available_devices() -> list[str]:
    gpus = [f"cuda:{index}" for index in range(torch.cuda.device_count())]
    return ["cpu", *gpus, *(["mps"] if torch.backends.mps.is_available() else [])]


def _default_device() -> str:
    if not torch.cuda.is_available():
        return "mps" if torch.backends.mps.is_available() else "cpu"
    local_rank = os.environ.get("LOCAL_RANK")  # set by torchrun and accelerate
    return "cuda" if local_rank is None else f"cuda:{local_rank}"


def launched_processes() -> tuple[int, int]:
    """Return this process's rank and the number of those that a launcher started to train together, (0, 1) if alone.

    Raises InvalidRequest where the environment says that there are others, but not how to reach them.
    """
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        return torch.distributed.get_rank(), torch.distributed.get_world_size()
    given = {name: os.environ[name] for name in _LAUNCHER_VARIABLES if name in os.environ}
    ranks = [given.get(name, default) for name, default in (("RANK", "0"), ("WORLD_SIZE", "1"), ("LOCAL_RANK", "0"))]
    if all(map(str.isdecimal, ranks)):
        rank, count, _ = map(int, ranks)
        is_launched = len(given) == len(_LAUNCHER_VARIABLES)
        is_alone = (rank, count) == (0, 1) and "LOCAL_RANK" not in given
        if is_alone or (is_launched and rank < count):
            return rank, count
    raise InvalidRequest(
        f"{', '.join(f'{name} = {value}' for name, value in given.items())}: expected all of "
        f"{', '.join(_LAUNCHER_VARIABLES)}, as torchrun sets them, or none: unset them to train in one process"
    )


def is_main_process() -> bool:
    """Tell whether this is the process that writes, of those that a launcher started to train together."""
    try:
        return launched_processes()[0] == 0
    except InvalidRequest:  # variables of another launcher, whose processes work alone
        return True


def resolve_dtype(name: str, device: torch.device | None = None) -> torch.dtype:
    """Return float32, bfloat16 or float16 by name; "auto" picks by device. Raises InvalidRequest for another name."""
    dtypes = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
    if name == AUTO:
        return torch.bfloat16 if device is not None and _has_bfloat16(device) else torch.float32
    if name not in dtypes:
        raise InvalidRequest(f"dtype {name!r} is unknown: use one of {', '.join([AUTO, *dtypes])}")
    return dtypes[name]


def resolve_precision(name: str, device: torch.device) -> torch.dtype:
    """Return the dtype of mixed-precision training; "auto" is bfloat16 where the device multiplies it fast.

    These are GPUs as in `resolve_dtype`, and CPUs with instructions for it: others take up to fifty times as long for a
    product in bfloat16 as in float32.
    """
    if name == AUTO and device.type == "cpu":
        capabilities: dict[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()  # older versions have none
        return torch.bfloat16 if any(map(capabilities.get, _CPU_BFLOAT16)) else torch.float32
    return resolve_dtype(name, device)


def _has_bfloat16(device: torch.device) -> bool:
    """Tell whether a device computes in bfloat16, as NVIDIA GPUs do from Ampere on; older ones emulate it slowly.

    All other devices get float32: the range of float16 is too small for SANA.
    """
    return device.type == "cuda" and torch.cuda.get_device_capability(device) >= _AMPERE


def dtype_name(dtype: torch.dtype) -> str:
    """Return the name of a dtype, as `resolve_dtype` takes it."""
    return str(dtype).removeprefix("torch.")


def is_out_of_memory(error: Exception) -> bool:
    """Tell whether an error of torch means that memory ran out, on a GPU or a CPU."""
    if not isinstance(error, RuntimeError):
        return False
    message = str(error)
    return (
        isinstance(error, torch.OutOfMemoryError) or "DefaultCPUAllocator" in message or "MPS backend out of" in message
    )


def free_memory() -> None:
    """Return cached blocks to the GPU, so that a smaller batch finds contiguous memory."""
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    elif torch.backends.mps.is_available():
        torch.mps.empty_cache()


@contextmanager
def exact_float32() -> Iterator[None]:
    """Disable TensorFloat-32, so that float32 operations on a GPU are exact float32."""
    backends: tuple[Any, Any] = (torch.backends.cuda.matmul, torch.backends.cudnn)
    previous = [backend.allow_tf32 for backend in backends]
    for backend in backends:
        backend.allow_tf32 = False
    try:
        yield
    finally:
        for backend, allowed in zip(backends, previous, strict=True):
            backend.allow_tf32 = allowed
