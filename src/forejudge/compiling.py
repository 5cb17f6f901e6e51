"""Models compiled by torch.compile: in copies, so that a model that was given stays as it is."""

import os
from contextlib import suppress
from copy import copy
from functools import cache
from pathlib import Path
from typing import TypeVar, cast

import torch
from torch import nn

from forejudge.library_calls import first_line

Model = TypeVar("Model", bound=nn.Module)


def with_compiled_parts(model: Model, *names: str) -> Model:
    """A copy that shares all weights, in which the modules of these names are compiled when they first run.

    They are compiled for one candidate, and once more for any number of them. Of a list every block is compiled by
    itself: blocks of one class share what is compiled. A name may lead inward, with dots.
    """
    found = copy(model)
    found._modules = dict(model._modules)
    for name in names:
        outer, _, inner = name.partition(".")
        part = found.get_submodule(outer)
        found._modules[outer] = with_compiled_parts(part, inner) if inner else _compiled(part)
    return found


def _compiled(part: nn.Module) -> nn.Module:
    if isinstance(part, nn.ModuleList):
        return nn.ModuleList(map(_compiled, part))
    return cast(nn.Module, torch.compile(part, dynamic=True))


def compile_error(error: Exception) -> str | None:
    """What torch.compile said of a block that it could not compile, in a line; None for any other error."""
    from torch._dynamo.exc import TorchDynamoException

    return first_line(error) if isinstance(error, TorchDynamoException) else None


@cache
def compiler_problem(device: torch.device) -> str | None:
    """Why nothing can be compiled for a device, in a line; None where it can. Tried once, which takes seconds."""
    _keep_for_the_next_start()
    try:
        torch.compile(torch.sin)(torch.ones(2, device=device))
    except Exception as error:  # of many kinds: no C++ compiler, no Triton, an unknown device
        return first_line(error)
    return None


def _keep_for_the_next_start() -> None:
    """PyTorch's own place for what it compiled is a temporary one, unless TORCHINDUCTOR_CACHE_DIR names another."""
    caches = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    with suppress(OSError):  # nothing can be kept there
        (caches / "forejudge" / "compiled").mkdir(parents=True, exist_ok=True)
        os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(caches / "forejudge" / "compiled"))
