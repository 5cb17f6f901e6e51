"""Blocks of models compiled by torch.compile: in copies, so that a model that was given stays as it is."""

from copy import copy
from functools import cache
from typing import Any, TypeVar

import torch
from torch import nn

from forejudge.library_calls import first_line

Model = TypeVar("Model", bound=nn.Module)


def with_compiled_blocks(model: Model, *lists: str) -> Model:
    """A copy that shares all weights, in which every block of the named lists is compiled when it first runs.

    Blocks of one class share what is compiled, which serves all sizes: one candidate is compiled for, and any more.
    """
    compiled = copy(model)
    compiled._modules = dict(model._modules)
    for name in lists:
        blocks: list[Any] = [torch.compile(block, dynamic=True) for block in getattr(model, name)]
        compiled._modules[name] = nn.ModuleList(blocks)
    return compiled


def compile_error(error: Exception) -> str | None:
    """What torch.compile said of a block that it could not compile, in a line; None for any other error."""
    from torch._dynamo.exc import TorchDynamoException

    return first_line(error) if isinstance(error, TorchDynamoException) else None


@cache
def compiler_problem(device: torch.device) -> str | None:
    """Why nothing can be compiled for a device, in a line; None where it can. Tried once, which takes seconds."""
    try:
        torch.compile(torch.sin)(torch.ones(2, device=device))
    except Exception as error:  # of many kinds: no C++ compiler, no Triton, an unknown device
        return first_line(error)
    return None
