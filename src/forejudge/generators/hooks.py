"""Calls into the parts of an offloaded or LoRA-adapted transformer.

A split transformer never calls the module's own `forward`, so this file does what accelerate and peft do around it.
"""

import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from diffusers.utils.torch_utils import get_module_execution_device
from torch import Tensor, nn

from forejudge.errors import InvalidRequest


@contextmanager
def forward_context(module: nn.Module, lora_scale: float = 1.0) -> Iterator[None]:
    """Move an offloaded module to its device and scale its LoRA layers, as calling it would, and undo both after.

    The hooks are accelerate's (`DiffusionPipeline.enable_model_cpu_offload`, `enable_sequential_cpu_offload`); the
    scale is diffusers' `scale` of `attention_kwargs`.
    """
    hook = getattr(module, "_hf_hook", None)
    if hook is not None:
        hook.pre_forward(module)
    try:
        with scaled_adapters([module], lora_scale):
            yield
    finally:
        if hook is not None:
            hook.post_forward(module, None)


@contextmanager
def scaled_adapters(modules: Iterable[nn.Module], scale: float) -> Iterator[None]:
    """Multiply the weights of all adapters by a scale for a while.

    Weights are restored exactly: diffusers' own `unscale_lora_layers` rounds, and forgets them after a scale of 0.
    """
    layers = [] if scale == 1 else [layer for module in modules for _, layer in adapter_layers(module.named_modules())]
    scalings = [dict(layer.scaling) for layer in layers]
    for layer in layers:
        layer.scale_layer(scale)
    try:
        yield
    finally:
        for layer, scaling in zip(layers, scalings, strict=True):
            layer.scaling.update(scaling)


def adapter_layers(modules: Iterable[tuple[str, nn.Module]]) -> list[tuple[str, Any]]:
    """Return the modules with adapters of peft, by name."""
    if "peft" not in sys.modules:  # it takes a second to import, and who made adapters has done so
        return []
    from peft.tuners.tuners_utils import BaseTunerLayer

    return [(name, layer) for name, layer in modules if isinstance(layer, BaseTunerLayer)]


def execution_device(module: nn.Module) -> torch.device:
    """Return the device a module runs on, which differs from where an offloaded one is kept."""
    device: torch.device = get_module_execution_device(module)
    return device


def stored_weight(module: nn.Module, name: str) -> Tensor:
    """Return a parameter or buffer of the module itself, wherever offloading keeps it; on meta if it has no values."""
    weight: Tensor = getattr(module, name)
    offloaded = [hook.weights_map[name] for hook in _hooks(module) if getattr(hook, "weights_map", None)]
    return offloaded[0] if weight.is_meta and offloaded else weight


def _hooks(module: nn.Module) -> tuple[Any, ...]:
    """Return accelerate's hooks on the module itself."""
    hook: Any = getattr(module, "_hf_hook", None)
    return () if hook is None else getattr(hook, "hooks", (hook,))


def check_hooks(module: nn.Module) -> None:
    """Raise InvalidRequest for a module whose forward pass diffusers' hooks (caches, group offloading) replace."""
    registry = getattr(module, "_diffusers_hook", None)
    if registry is not None and registry.hooks:
        raise InvalidRequest(
            f"{type(module).__name__} carries hooks of diffusers ({', '.join(registry.hooks)}) and cannot be split: "
            "remove them, or use enable_model_cpu_offload()"
        )
