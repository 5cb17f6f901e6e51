"""torch.compile for copies of a model that share its weights; the original is not changed."""

from copy import copy
from functools import cache
from typing import Any, TypeVar

import torch
from torch import nn

from forejudge.checkpoint import first_line

Model = TypeVar("Model", bound=nn.Module)


def compile_layers(model: Model) -> Model:
    """Copy a model, sharing all weights, with every layer of its module lists compiled at its first run.

    Each layer class is compiled twice: for one candidate, and for a batch of any other size.
    """
    module_lists = [name for name, module in model.named_modules() if isinstance(module, nn.ModuleList)]
    outermost = [name for name in module_lists if not any(name.startswith(f"{other}.") for other in module_lists)]
    for name in outermost:
        layers = nn.ModuleList(_compile_copy(layer, dynamic=True) for layer in model.get_submodule(name).children())
        model = _replace_submodule(model, name, layers)
    return model


def compile_submodule(model: Model, name: str) -> Model:
    """Copy a model, sharing all weights, with one module compiled as a whole for each shape of its input."""
    return _replace_submodule(model, name, _compile_copy(model.get_submodule(name), dynamic=False))


def _compile_copy(module: nn.Module, dynamic: bool) -> nn.Module:
    """Copy a module with its class and weight names, so that saving and fingerprints stay the same.

    Hooks run outside the compiled code; a hook added later to either module does not reach the other.
    """
    clone = copy(module)
    clone._forward_hooks, clone._forward_pre_hooks = copy(module._forward_hooks), copy(module._forward_pre_hooks)
    clone.forward = torch.compile(clone.forward, dynamic=dynamic)
    return clone


def _replace_submodule(model: Model, name: str, module: nn.Module) -> Model:
    """Copy a model with another module at a dotted name."""
    clone, (outer, _, inner) = copy(model), name.partition(".")
    clone._modules = dict(model._modules)
    clone._modules[outer] = _replace_submodule(model.get_submodule(outer), inner, module) if inner else module
    return clone


def unwrap_compiled(module: Any) -> Any:
    """Return the module inside what `torch.compile(module)` returns; any other module as it is."""
    return getattr(module, "_orig_mod", module)


def compile_error(error: Exception) -> str | None:
    """Return torch.compile's reason on one line if it failed to compile a block; None for any other error."""
    from torch._dynamo.exc import TorchDynamoException

    return first_line(error) if isinstance(error, TorchDynamoException) else None


@cache
def compiler_problem(device: torch.device) -> str | None:
    """Return on one line why torch.compile does not work for a device, or None. Takes seconds, once per process."""
    try:
        torch.compile(torch.sin)(torch.ones(2, device=device))
    except Exception as error:  # of many kinds: no C++ compiler, no Triton, an unknown device
        return first_line(error)
    return None
