"""Calls into the parts of an offloaded or LoRA-adapted transformer.

A split transformer never calls the module's own `forward`, so this file does what accelerate and peft do around it.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from diffusers.utils import USE_PEFT_BACKEND, scale_lora_layers, unscale_lora_layers
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
    scaled = USE_PEFT_BACKEND and lora_scale != 1  # a scale of 1 would only import peft
    if scaled:
        scale_lora_layers(module, lora_scale)
    try:
        yield
    finally:
        if scaled:
            unscale_lora_layers(module, lora_scale)
        if hook is not None:
            hook.post_forward(module, None)


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
