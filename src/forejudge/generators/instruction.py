"""Prompts that all follow the same instruction: a causal text encoder reads it once, and no padding at all."""

from functools import cached_property
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from forejudge.generators.text_cache import TextCache


class InstructedEncoder:
    """Encodes an instruction and a prompt, which are one text: its tokens may be others where the two meet."""

    def __init__(
        self, text_encoder: Any, tokenizer: PreTrainedTokenizerBase, instruction: str, device: torch.device
    ) -> None:
        self.text_encoder, self.tokenizer = text_encoder, tokenizer
        self.instruction, self.device = instruction, device

    @torch.no_grad()
    def states(self, prompt: str) -> Tensor:
        """The hidden states (1, L, D) of all tokens, equal to those of a single reading but for rounding."""
        known, left = self.split(prompt)
        if not known:
            return TextCache.of(self.text_encoder, left, self.device).states_NLD
        return self._read.states_after(self.text_encoder, known, left)

    def split(self, prompt: str) -> tuple[int, list[int]]:
        """How many tokens have been read with the instruction, and those that are left."""
        tokens = self._tokens(self.instruction + prompt)
        known = self._read.common(tokens) if self.instruction else 0
        return known, tokens[known:]

    @cached_property
    def _read(self) -> TextCache:
        with torch.no_grad():
            return TextCache.of(self.text_encoder, self._tokens(self.instruction), self.device)

    def _tokens(self, text: str) -> list[int]:
        return list(self.tokenizer(text).input_ids)
