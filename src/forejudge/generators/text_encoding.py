"""Prompts: refuse those a text encoder would cut, and encode them after a shared instruction that is read once."""

import inspect
from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers import DynamicCache, PreTrainedTokenizerBase

from forejudge.errors import InvalidRequest
from forejudge.noise import encode_text


def check_text(prompt: str) -> None:
    """Raise InvalidRequest for a prompt that is empty or no Unicode text."""
    if not prompt.strip():
        raise InvalidRequest("the prompt is empty: describe the image")
    encode_text(prompt)


def check_prompt(
    prompt: str,
    text: str,
    tokenizer: PreTrainedTokenizerBase,
    tokens_before: int,
    max_tokens: int,
    tokens_after: int = 0,
) -> None:
    """Raise InvalidRequest for an empty prompt, and for one whose end the text encoder would cut.

    `text` is what the text encoder gets: the prompt after `tokens_before` tokens of an instruction. It takes
    `max_tokens` of the rest, special tokens included; `tokens_after` of them (an end token) are never cut.
    """
    check_text(prompt)
    tokens = tokenizer(text).input_ids
    truncated = tokens[tokens_before + max_tokens - tokens_after : len(tokens) - tokens_after]
    if truncated:
        raise InvalidRequest(
            f"the prompt has {len(tokens) - tokens_before} tokens and the text encoder takes {max_tokens}; "
            f"this would be cut: {tokenizer.decode(truncated)[:80]!r}"
        )


class CachedInstructionEncoder:
    """Causal text encoder for prompts that follow one instruction, which it reads once; no padding.

    Instruction and prompt are tokenized as one text, since their tokens may merge where they meet.
    """

    def __init__(
        self, text_encoder: Any, tokenizer: PreTrainedTokenizerBase, instruction: str, device: torch.device
    ) -> None:
        self.text_encoder, self.tokenizer = text_encoder, tokenizer
        self.instruction, self.device = instruction, device
        self._instruction_caches: dict[float, TextCache] = {}

    @torch.no_grad()
    def hidden_states(self, prompt: str, lora_scale: float = 1.0) -> Tensor:
        """Return the hidden states (1, L, D) of all tokens, equal to those of a single pass up to rounding.

        `lora_scale` is the scale at which the text encoder's adapters are now.
        """
        num_cached, remaining_tokens = self.split(prompt, lora_scale)
        if not num_cached:
            return TextCache.from_tokens(self.text_encoder, remaining_tokens, self.device).states_NLD
        return self._instruction_cache(lora_scale).extend_states(self.text_encoder, num_cached, remaining_tokens)

    def split(self, prompt: str, lora_scale: float = 1.0) -> tuple[int, list[int]]:
        """Return the number of tokens cached with the instruction, and the tokens that remain."""
        tokens = self._tokens(self.instruction + prompt)
        num_cached = self._instruction_cache(lora_scale).num_common_tokens(tokens) if self.instruction else 0
        return num_cached, tokens[num_cached:]

    @torch.no_grad()
    def _instruction_cache(self, lora_scale: float) -> "TextCache":
        """Return the instruction read at a scale of adapters; that of one scale is kept."""
        if lora_scale not in self._instruction_caches:
            cache = TextCache.from_tokens(self.text_encoder, self._tokens(self.instruction), self.device)
            self._instruction_caches = {lora_scale: cache}
        return self._instruction_caches[lora_scale]

    def _tokens(self, text: str) -> list[int]:
        return list(self.tokenizer(text).input_ids)


@dataclass(frozen=True)
class TextCache:
    """State of a causal transformers model, without an output layer, after L tokens.

    `states_NLD` are its last hidden states (1, L, D), `layers` each layer's keys and values (1, H, L, D). A layer with
    a sliding window keeps the window only, so L must not exceed it.
    """

    tokens: tuple[int, ...]
    states_NLD: Tensor
    layers: tuple[tuple[Tensor, Tensor], ...]

    @classmethod
    def from_tokens(cls, model: Any, tokens: Sequence[int], device: torch.device) -> "TextCache":
        """Run the model on `tokens`."""
        cache = DynamicCache(config=model.config)
        states_NLD = _run_model(model, tokens, device, cache)
        return cls(tuple(tokens), states_NLD, tuple((layer.keys, layer.values) for layer in cache.layers))

    def num_common_tokens(self, tokens: Sequence[int]) -> int:
        """Count the cached tokens that `tokens` begins with, leaving at least its last one to run."""
        pairs = list(zip(self.tokens, tokens[:-1], strict=False))
        return next((index for index, (ours, theirs) in enumerate(pairs) if ours != theirs), len(pairs))

    def extend_states(self, model: Any, length: int, tokens: Sequence[int]) -> Tensor:
        """Return the states (1, length + L, D) of the first `length` cached tokens followed by `tokens`."""
        cache = DynamicCache(config=model.config)
        for index, (keys, values) in enumerate(self.layers):
            cache.update(keys[:, :, :length], values[:, :, :length], index)
        new_states_NLD = _run_model(model, tokens, self.states_NLD.device, cache)
        return torch.cat([self.states_NLD[:, :length], new_states_NLD], dim=1)


def _run_model(model: Any, tokens: Sequence[int], device: torch.device, cache: DynamicCache) -> Tensor:
    ids_NL = torch.tensor([list(tokens)], device=device)
    # transformers 5.24 renamed the argument, and removes the old name in 5.40.
    name = "cache" if "cache" in inspect.signature(model.forward).parameters else "past_key_values"
    states_NLD: Tensor = model(input_ids=ids_NL, use_cache=True, **{name: cache})[0]
    return states_NLD


def without_softcap(text_encoder: nn.Module) -> nn.Module:
    """Copy a Gemma-2 without its cap on attention logits, sharing all weights.

    transformers 4 ran Gemma-2 so, since its fast attention had no cap. Raises InvalidRequest for an offloaded model,
    whose hooks would move weights that the copy no longer shares.
    """
    if any(hasattr(module, "_hf_hook") for module in text_encoder.modules()):
        raise InvalidRequest(
            "gemma_softcap = false does not work with an offloaded text encoder: load it without offload"
        )
    shared: dict[int, Any] = {id(weight): weight for weight in (*text_encoder.parameters(), *text_encoder.buffers())}
    model: Any = deepcopy(text_encoder, shared)
    model.config.attn_logit_softcapping = None
    for module in model.modules():
        if hasattr(module, "attn_logit_softcapping"):
            module.attn_logit_softcapping = None
    return model
