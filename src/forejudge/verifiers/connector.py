"""From hidden states to the language model's embeddings: standardise, then LLaVA's `mlp2x_gelu`."""

import math
from collections.abc import Callable
from typing import Self

import torch
from torch import Tensor, nn

from forejudge.errors import InvalidRequest

_EPSILON = 1e-6


class Connector(nn.Module):
    """Two linear layers with an exact GELU between, over states standardised per channel.

    With `merge_size` m the states of m x m neighbouring tokens are put into one embedding, side by side, which leaves
    the language model m x m times fewer tokens to read (`spatial_merge_size` of Qwen2-VL, Wang et al. 2024). The
    recorded mean and variance are part of the weights: a checkpoint without them does not load.
    """

    mean_D: Tensor
    variance_D: Tensor

    def __init__(self, width: int, embedding_width: int, merge_size: int = 1) -> None:
        super().__init__()
        self.merge_size = merge_size
        self.register_buffer("mean_D", torch.zeros(width))
        self.register_buffer("variance_D", torch.ones(width))
        self.layers = nn.Sequential(
            nn.Linear(merge_size**2 * width, embedding_width),
            nn.GELU(),
            nn.Linear(embedding_width, embedding_width),
        )

    def set_statistics(self, mean_D: Tensor, variance_D: Tensor) -> None:
        """Record the mean and variance of each channel of the states to be read."""
        self.mean_D.copy_(mean_D)
        self.variance_D.copy_(variance_D)

    def forward(self, hidden_NTD: Tensor) -> Tensor:
        """(N, T, D) to (N, T / merge_size^2, embedding width). Raises InvalidRequest for tokens that do not merge."""
        standard_NTD = (hidden_NTD.float() - self.mean_D) / torch.sqrt(self.variance_D + _EPSILON)
        embedded: Tensor = self.layers(self._merged(standard_NTD).to(next(self.layers.parameters()).dtype))
        return embedded

    def _merged(self, tokens_NTD: Tensor) -> Tensor:
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

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        """Moved with the weights, but never rounded with them: float16 does not hold every variance."""
        statistics = self.mean_D, self.variance_D
        super()._apply(fn, recurse)
        self.mean_D, self.variance_D = (each.to(self.mean_D.device) for each in statistics)
        return self
