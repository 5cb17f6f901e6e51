"""Models compiled by torch.compile: in copies, so that a model that was given stays as it is."""

from copy import copy
from functools import cache
from typing import TypeVar

import torch
from torch import nn

from forejudge.checkpoint import first_line

Model = TypeVar("Model", bound=nn.Module)


def compile_layers(model: Model) -> Model:
    """A copy that shares all weights, in which every layer of its lists of layers is compiled when it first runs.

    That is once for one candidate, and once for any number of them: layers of one class share what is compiled.
    """
    module_lists = [name for name, module in model.named_modules() if isinstance(module, nn.ModuleList)]
    outermost = [name for name in module_lists if not any(name.startswith(f"{other}.") for other in module_lists)]
    for name in outermost:
        layers = nn.ModuleList(_compile_copy(layer, dynamic=True) for layer in model.get_submodule(name).children())
        model = _replace_submodule(model, name, layers)
    return model


def compile_submodule(model: Model, name: str) -> Model:
    """A copy that shares all weights, in which one module is compiled as a whole, anew for each shape of its input."""
    return _replace_submodule(model, name, _compile_copy(model.get_submodule(name), dynamic=False))


def _compile_copy(module: nn.Module, dynamic: bool) -> nn.Module:
    """A copy of the same class whose weights have the same names, so that it is saved and told apart as before.

    Hooks run outside of what is compiled, and those that are added to either later do not reach the other.
    """
    clone = copy(module)
    clone._forward_hooks, clone._forward_pre_hooks = copy(module._forward_hooks), copy(module._forward_pre_hooks)
    clone.forward = torch.compile(clone.forward, dynamic=dynamic)
    return clone


def _replace_submodule(model: Model, name: str, module: nn.Module) -> Model:
    """A copy with another module at a name, which may lead inward with dots."""
    clone, (outer, _, inner) = copy(model), name.partition(".")
    clone._modules = dict(model._modules)
    clone._modules[outer] = _replace_submodule(model.get_submodule(outer), inner, module) if inner else module
    return clone


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
