"""Devices and dtypes by name, and what to do when their memory runs out."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from forejudge.errors import InvalidRequest

AUTO = "auto"
_AMPERE = (8, 0)  # compute capability


def resolve_device(name: str | None) -> torch.device:
    """A device by name; None takes CUDA where there is one, of several processes each its own, else Apple's MPS.

    Raises InvalidRequest for one that is not here.
    """
    try:
        device = torch.device(name or _default_device())
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise InvalidRequest(
            f"device {name!r} is not available here ({str(error).splitlines()[0]}): use cpu, cuda or mps"
        ) from None
    return device


def _default_device() -> str:
    if not torch.cuda.is_available():
        return "mps" if torch.backends.mps.is_available() else "cpu"
    local_rank = os.environ.get("LOCAL_RANK")  # set by launchers of several processes
    return "cuda" if local_rank is None else f"cuda:{local_rank}"


def is_main_process() -> bool:
    """Of several processes that a launcher started to train together, whether this is the one that writes."""
    return os.environ.get("RANK", "0") == "0"


def resolve_dtype(name: str, device: torch.device | None = None) -> torch.dtype:
    """float32, bfloat16 or float16 by name, or "auto" for what suits a device. Raises InvalidRequest for another."""
    dtypes = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
    if name == AUTO:
        return torch.bfloat16 if device is not None and _has_bfloat16(device) else torch.float32
    if name not in dtypes:
        raise InvalidRequest(f"dtype {name!r} is unknown: use one of {', '.join([AUTO, *dtypes])}")
    return dtypes[name]


def _has_bfloat16(device: torch.device) -> bool:
    """Whether a GPU computes in it, as NVIDIA's do from Ampere on; older ones claim to, and emulate it slowly.

    They get float32 and not float16, whose range is too small for SANA. So do CPUs and MPS.
    """
    return device.type == "cuda" and torch.cuda.get_device_capability(device) >= _AMPERE


def dtype_name(dtype: torch.dtype) -> str:
    """The name that `resolve_dtype` takes."""
    return str(dtype).removeprefix("torch.")


def is_out_of_memory(error: RuntimeError) -> bool:
    """Whether torch says that memory ran out, on a GPU or a CPU."""
    message = str(error)
    return (
        isinstance(error, torch.OutOfMemoryError) or "DefaultCPUAllocator" in message or "MPS backend out of" in message
    )


def free_memory() -> None:
    """Hand cached blocks back to the GPU, so that a smaller chunk finds whole ones."""
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    elif torch.backends.mps.is_available():
        torch.mps.empty_cache()


@contextmanager
def exact_float32() -> Iterator[None]:
    """Compute in float32 where it says float32, and not in the shorter TensorFloat-32 that GPUs may take for it."""
    backends: tuple[Any, Any] = (torch.backends.cuda.matmul, torch.backends.cudnn)
    previous = [backend.allow_tf32 for backend in backends]
    for backend in backends:
        backend.allow_tf32 = False
    try:
        yield
    finally:
        for backend, allowed in zip(backends, previous, strict=True):
            backend.allow_tf32 = allowed
