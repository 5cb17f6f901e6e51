"""Text that a causal language model has read once, so that only what follows it is read again."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache


@dataclass(frozen=True)
class TextCache:
    """What a transformers model without an output layer keeps of L tokens that it has read.

    `states_NLD` are its last hidden states (1, L, D), `layers` each layer's keys and values (1, H, L, D). A layer with
    a sliding window keeps what lies in the window: L must not be longer than that.
    """

    tokens: tuple[int, ...]
    states_NLD: Tensor
    layers: tuple[tuple[Tensor, Tensor], ...]

    @classmethod
    def of(cls, model: Any, tokens: Sequence[int], device: torch.device) -> "TextCache":
        """Read them."""
        cache = DynamicCache(config=model.config)
        states_NLD = _read(model, tokens, device, cache)
        return cls(tuple(tokens), states_NLD, tuple((layer.keys, layer.values) for layer in cache.layers))

    def common(self, tokens: Sequence[int]) -> int:
        """With how many of these a text begins; its last token is never among them, so that one is left to read."""
        both = list(zip(self.tokens, tokens[:-1], strict=False))
        return next((place for place, (ours, theirs) in enumerate(both) if ours != theirs), len(both))

    def states_after(self, model: Any, length: int, tokens: Sequence[int]) -> Tensor:
        """The states (1, length + L, D) of the first `length` tokens and of others that follow them."""
        cache = DynamicCache(config=model.config)
        for place, (keys, values) in enumerate(self.layers):
            cache.update(keys[:, :, :length], values[:, :, :length], place)
        following_NLD = _read(model, tokens, self.states_NLD.device, cache)
        return torch.cat([self.states_NLD[:, :length], following_NLD], dim=1)


def _read(model: Any, tokens: Sequence[int], device: torch.device, cache: DynamicCache) -> Tensor:
    ids_NL = torch.tensor([list(tokens)], device=device)
    states_NLD: Tensor = model(input_ids=ids_NL, past_key_values=cache, use_cache=True)[0]
    return states_NLD
