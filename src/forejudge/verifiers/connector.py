"""From hidden states to the language model's embeddings: standardise, then LLaVA's `mlp2x_gelu`."""

import math
from collections.abc import Callable
from typing import Literal, Self

import torch
from torch import Tensor, nn

from forejudge.errors import InvalidRequest

# FOLDED: What a dtype must not round: statistics of hidden states, and the frequencies of rotary positions.


class KeepBufferDtype(nn.Module):
    """A module whose buffers, and those of its parts, move with the weights but keep their dtype.

    float16 does not hold every variance, and in bfloat16 rotary frequencies are off by radians after 1000 tokens.
    """

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        original_buffers = [(module, dict(module.named_buffers(recurse=False))) for module in self.modules()]
        super()._apply(fn, recurse)
        for module, buffers in original_buffers:
            for name, buffer in buffers.items():
                setattr(module, name, buffer.to(getattr(module, name).device))
        return self


StatisticsKind = Literal["channel", "token", "global", "none"]
"""Of what mean and variance were taken: each channel (D,), each token (T, 1), all values (1,), or not at all."""
_EPSILON = 1e-6


class Connector(KeepBufferDtype):
    """Two linear layers with an exact GELU between, over standardised states.

    With `merge_size` m the states of m x m neighbouring tokens are put into one embedding, side by side, which leaves
    the language model m x m times fewer tokens to read (`spatial_merge_size` of Qwen2-VL, Wang et al. 2024). The
    recorded mean and variance are part of the weights: a checkpoint without them does not load, unless it says that it
    reads states as they are (`statistics` "none"). `tokens` is T, for statistics of each token.
    """

    mean_D: Tensor | None
    variance_D: Tensor | None

    def __init__(
        self,
        width: int,
        embedding_width: int,
        merge_size: int = 1,
        statistics: StatisticsKind = "channel",
        tokens: int = 1,
    ) -> None:
        super().__init__()
        self.width, self.merge_size = width, merge_size
        shape = {"channel": (width,), "token": (tokens, 1), "global": (1,)}.get(statistics)
        self.register_buffer("mean_D", None if shape is None else torch.zeros(shape))
        self.register_buffer("variance_D", None if shape is None else torch.ones(shape))
        self.layers = nn.Sequential(
            nn.Linear(merge_size**2 * width, embedding_width),
            nn.GELU(),
            nn.Linear(embedding_width, embedding_width),
        )

    def set_statistics(self, mean_D: Tensor, variance_D: Tensor) -> None:
        """Record mean and variance of the states to be read, in their own dtype.

        States are standardised in that dtype or in theirs, whichever is wider: float32 statistics in float32.
        """
        assert self.mean_D is not None, "states are read as they are"
        assert mean_D.shape == variance_D.shape == self.mean_D.shape, f"{mean_D.shape} is not {self.mean_D.shape}"
        device = self.mean_D.device
        self.mean_D, self.variance_D = mean_D.to(device, copy=True), variance_D.to(device, copy=True)

    def mean_states(self, hidden_NTD: Tensor) -> Tensor:
        """States of such a shape that are zero once they are standardised."""
        return torch.zeros_like(hidden_NTD) if self.mean_D is None else self.mean_D.expand_as(hidden_NTD)

    def forward(self, hidden_NTD: Tensor) -> Tensor:
        """(N, T, D) to (N, T / merge_size^2, embedding width).

        Raises InvalidRequest for tokens that do not merge, or of another number than each has statistics.
        """
        standardized_NTD = self._merge_tokens(self._standardize(hidden_NTD))
        embedded: Tensor = self.layers(standardized_NTD.to(next(self.layers.parameters()).dtype))
        return embedded

    def _standardize(self, hidden_NTD: Tensor) -> Tensor:
        if self.mean_D is None or self.variance_D is None:
            return hidden_NTD
        tokens = hidden_NTD.shape[1]
        if self.mean_D.dim() == 2 and len(self.mean_D) != tokens:
            raise InvalidRequest(
                f"a verifier with statistics of each of {len(self.mean_D)} tokens reads pictures of as many, not of "
                f"{tokens}: draw them at the generator's own size"
            )
        return (hidden_NTD - self.mean_D) / torch.sqrt(self.variance_D + _EPSILON)

    def _merge_tokens(self, tokens_NTD: Tensor) -> Tensor:
        """Squares of neighbours as one token; the tokens of a picture stand row by row."""
        size, (count, tokens, width) = self.merge_size, tokens_NTD.shape
        if size == 1:
            return tokens_NTD
        side = math.isqrt(tokens)
        if side * side != tokens or side % size:
            raise InvalidRequest(
                f"a verifier that merges {size} x {size} tokens reads square pictures whose sides have a multiple of "
                f"{size} tokens, not {tokens} tokens in all"
            )
        squares = tokens_NTD.reshape(count, side // size, size, side // size, size, width).transpose(2, 3)
        return squares.reshape(count, tokens // size**2, size**2 * width)
