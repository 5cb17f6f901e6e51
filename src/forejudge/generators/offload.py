"""Text encoders that wait on the CPU: each is on the generator's device only while it reads a prompt."""

from typing import Any

import torch
from accelerate.hooks import ModelHook, add_hook_to_module
from torch import nn

from forejudge.errors import InvalidRequest

TEXT_ENCODER = "text-encoder"
_CPU = torch.device("cpu")


def check_offload(offload: str | None) -> None:
    """Raises InvalidRequest for what cannot be offloaded."""
    if offload not in (None, TEXT_ENCODER):
        raise InvalidRequest(f"offload = {offload!r} is not supported: use {TEXT_ENCODER}, or leave it out")


def is_text_encoder(part: str) -> bool:
    """Whether diffusers calls a text encoder so: text_encoder, text_encoder_2, ..."""
    return part.startswith("text_encoder")


def offload_text_encoders(pipeline: Any, device: torch.device) -> None:
    """Let every text encoder of a diffusers pipeline come to the device when it is called, and leave it after."""
    for part, module in pipeline.components.items():
        if isinstance(module, nn.Module) and is_text_encoder(part):
            add_hook_to_module(module, _OnlyWhileCalled(device))


class _OnlyWhileCalled(ModelHook):
    """accelerate's own hooks fetch a model as well, but leave it there until another one is called."""

    def __init__(self, execution_device: torch.device) -> None:
        self.execution_device = execution_device

    def pre_forward(self, module: nn.Module, *args: Any, **kwargs: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Fetch it."""
        module.to(self.execution_device)
        return args, kwargs

    def post_forward(self, module: nn.Module, output: Any) -> Any:
        """Send it back."""
        module.to(_CPU)
        return output
