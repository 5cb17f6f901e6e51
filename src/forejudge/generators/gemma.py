"""Gemma-2 as a text encoder."""

from copy import deepcopy
from typing import Any

from torch import nn

from forejudge.errors import InvalidRequest


def without_softcap(text_encoder: nn.Module) -> nn.Module:
    """The same weights in a model of its own, whose attention is not capped.

    transformers 4 ran Gemma-2 so, since its fast attention had no cap. Raises InvalidRequest for a model that is
    offloaded: its hooks would move weights that it no longer shares.
    """
    if any(hasattr(module, "_hf_hook") for module in text_encoder.modules()):
        raise InvalidRequest("gemma_softcap = false cannot be had for an offloaded text encoder: load it without")
    shared: dict[int, Any] = {id(weight): weight for weight in (*text_encoder.parameters(), *text_encoder.buffers())}
    model: Any = deepcopy(text_encoder, shared)
    model.config.attn_logit_softcapping = None
    for module in model.modules():
        if hasattr(module, "attn_logit_softcapping"):
            module.attn_logit_softcapping = None
    return model
