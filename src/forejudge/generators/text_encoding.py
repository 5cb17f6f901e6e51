"""Prompts that a generator can draw."""

from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn
from transformers import DynamicCache, PreTrainedTokenizerBase

from forejudge.errors import InvalidRequest

# FOLDED: Gemma-2 as a text encoder.


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


# FOLDED: Text that a causal language model has read once, so that only what follows it is read again.


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
    def from_tokens(cls, model: Any, tokens: Sequence[int], device: torch.device) -> "TextCache":
        """Read them."""
        cache = DynamicCache(config=model.config)
        states_NLD = _read(model, tokens, device, cache)
        return cls(tuple(tokens), states_NLD, tuple((layer.keys, layer.values) for layer in cache.layers))

    def num_common_tokens(self, tokens: Sequence[int]) -> int:
        """With how many of these a text begins; its last token is never among them, so that one is left to read."""
        pairs = list(zip(self.tokens, tokens[:-1], strict=False))
        return next((index for index, (ours, theirs) in enumerate(pairs) if ours != theirs), len(pairs))

    def extend_states(self, model: Any, length: int, tokens: Sequence[int]) -> Tensor:
        """The states (1, length + L, D) of the first `length` tokens and of others that follow them."""
        cache = DynamicCache(config=model.config)
        for index, (keys, values) in enumerate(self.layers):
            cache.update(keys[:, :, :length], values[:, :, :length], index)
        new_states_NLD = _read(model, tokens, self.states_NLD.device, cache)
        return torch.cat([self.states_NLD[:, :length], new_states_NLD], dim=1)


def _read(model: Any, tokens: Sequence[int], device: torch.device, cache: DynamicCache) -> Tensor:
    ids_NL = torch.tensor([list(tokens)], device=device)
    states_NLD: Tensor = model(input_ids=ids_NL, past_key_values=cache, use_cache=True)[0]
    return states_NLD


# FOLDED: Prompts that all follow the same instruction: a causal text encoder reads it once, and no padding at all.


class CachedInstructionEncoder:
    """Encodes an instruction and a prompt, which are one text: its tokens may be others where the two meet."""

    def __init__(
        self, text_encoder: Any, tokenizer: PreTrainedTokenizerBase, instruction: str, device: torch.device
    ) -> None:
        self.text_encoder, self.tokenizer = text_encoder, tokenizer
        self.instruction, self.device = instruction, device

    @torch.no_grad()
    def hidden_states(self, prompt: str) -> Tensor:
        """The hidden states (1, L, D) of all tokens, equal to those of a single reading but for rounding."""
        num_cached, remaining_tokens = self.split(prompt)
        if not num_cached:
            return TextCache.from_tokens(self.text_encoder, remaining_tokens, self.device).states_NLD
        return self._read.extend_states(self.text_encoder, num_cached, remaining_tokens)

    def split(self, prompt: str) -> tuple[int, list[int]]:
        """How many tokens have been read with the instruction, and those that are left."""
        tokens = self._tokens(self.instruction + prompt)
        num_cached = self._read.num_common_tokens(tokens) if self.instruction else 0
        return num_cached, tokens[num_cached:]

    @cached_property
    def _read(self) -> TextCache:
        with torch.no_grad():
            return TextCache.from_tokens(self.text_encoder, self._tokens(self.instruction), self.device)

    def _tokens(self, text: str) -> list[int]:
        return list(self.tokenizer(text).input_ids)


def check_prompt(
    prompt: str,
    text: str,
    tokenizer: PreTrainedTokenizerBase,
    tokens_before: int,
    max_tokens: int,
    tokens_after: int = 0,
) -> None:
    """`text` is what the text encoder gets: the prompt after `tokens_before` tokens of an instruction.

    `tokens_after` of its tokens (an end mark) follow the prompt however much of it is cut. Raises InvalidRequest for
    an empty prompt, and for one of more than `max_tokens` tokens, marks included, whose end would be cut.
    """
    check_not_empty(prompt)
    tokens = tokenizer(text).input_ids
    truncated = tokens[tokens_before + max_tokens - tokens_after : len(tokens) - tokens_after]
    if truncated:
        raise InvalidRequest(
            f"the prompt has {len(tokens) - tokens_before} tokens and the text encoder takes {max_tokens}; "
            f"this would be cut: {tokenizer.decode(truncated)[:80]!r}"
        )


def check_not_empty(prompt: str) -> None:
    """Raises InvalidRequest for a prompt of blanks."""
    if not prompt.strip():
        raise InvalidRequest("the prompt is empty: say what the picture should show")
