"""Connector from hidden states to a language model's embeddings: standardize, then LLaVA's `mlp2x_gelu`.

`KeepBufferDtype` and `Standardizer` are its parts that other modules share.
"""

import math
from collections.abc import Callable
from typing import Literal, Self

import torch
from torch import Tensor, nn

from forejudge.errors import InvalidRequest
from forejudge.types import Grid

StatisticsKind = Literal["channel", "token", "global", "none"]
"""Mean and variance per channel (D,), per token (T, 1), of all values (1,), or none."""
_EPSILON = 1e-6


class KeepBufferDtype(nn.Module):
    """Module whose buffers, and those of its parts, move with the weights but keep their dtype.

    float16 cannot hold every variance, and in bfloat16 rotary frequencies are off by radians after 1000 tokens.
    """

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        original_buffers = [(module, dict(module.named_buffers(recurse=False))) for module in self.modules()]
        super()._apply(fn, recurse)
        for module, buffers in original_buffers:
            for name, buffer in buffers.items():
                setattr(module, name, buffer.to(getattr(module, name).device))
        return self


class Standardizer(KeepBufferDtype):
    """Module that standardizes its input by a recorded mean and variance.

    They are part of the weights: a checkpoint without them does not load, unless `statistics` is "none". `tokens` is T,
    for statistics per token.
    """

    mean_D: Tensor | None
    variance_D: Tensor | None

    def __init__(self, width: int, statistics: StatisticsKind = "channel", tokens: int = 1) -> None:
        super().__init__()
        self.width = width
        shape = {"channel": (width,), "token": (tokens, 1), "global": (1,)}.get(statistics)
        self.register_buffer("mean_D", None if shape is None else torch.zeros(shape))
        self.register_buffer("variance_D", None if shape is None else torch.ones(shape))

    def set_statistics(self, mean_D: Tensor, variance_D: Tensor) -> None:
        """Record mean and variance of the states to be read, in their own dtype.

        States are standardized in that dtype or in theirs, whichever is wider: float32 statistics in float32.
        """
        assert self.mean_D is not None, "without statistics states are read as they are"
        assert mean_D.shape == variance_D.shape == self.mean_D.shape, f"{mean_D.shape} is not {self.mean_D.shape}"
        device = self.mean_D.device
        self.mean_D, self.variance_D = mean_D.to(device, copy=True), variance_D.to(device, copy=True)

    def standardize(self, hidden_NTD: Tensor, grid: Grid | None = None) -> Tensor:
        """Standardize states. Raises InvalidRequest for tokens other than those of statistics per token, a square."""
        if self.mean_D is None or self.variance_D is None:
            return hidden_NTD
        rows, columns = grid or (1, 1)
        if self.mean_D.dim() == 2 and (len(self.mean_D) != hidden_NTD.shape[1] or rows != columns):
            raise InvalidRequest(
                f"a verifier with statistics for each of {len(self.mean_D)} tokens cannot read an image of "
                f"{_describe(grid, hidden_NTD.shape[1])}: generate at the generator's default size"
            )
        return (hidden_NTD - self.mean_D) / torch.sqrt(self.variance_D + _EPSILON)

    def mean_states(self, hidden_NTD: Tensor) -> Tensor:
        """Return states of the same shape that standardize to zero."""
        return torch.zeros_like(hidden_NTD) if self.mean_D is None else self.mean_D.expand_as(hidden_NTD)


class Connector(Standardizer):
    """Two linear layers with an exact GELU between them, over standardized states.

    With `merge_size` m the states of m x m neighboring tokens are concatenated into one embedding, which leaves the
    language model m x m times fewer tokens to read (`spatial_merge_size` of Qwen2-VL, Wang et al. 2024).
    """

    def __init__(
        self,
        width: int,
        embedding_width: int,
        merge_size: int = 1,
        statistics: StatisticsKind = "channel",
        tokens: int = 1,
    ) -> None:
        super().__init__(width, statistics, tokens)
        self.merge_size = merge_size
        self.layers = nn.Sequential(
            nn.Linear(merge_size**2 * width, embedding_width),
            nn.GELU(),
            nn.Linear(embedding_width, embedding_width),
        )

    def forward(self, hidden_NTD: Tensor, grid: Grid | None = None) -> Tensor:
        """Map (N, T, D) to (N, T / merge_size^2, embedding width); without `grid` the T tokens are a square.

        Raises InvalidRequest for tokens that do not fit.
        """
        merged_NTD = self._merge_tokens(self.standardize(hidden_NTD, grid), grid)
        embedded_NTE: Tensor = self.layers(merged_NTD.to(next(self.layers.parameters()).dtype))
        return embedded_NTE

    def _merge_tokens(self, tokens_NTD: Tensor, grid: Grid | None) -> Tensor:
        """Concatenate squares of neighbors."""
        size, (count, tokens, width) = self.merge_size, tokens_NTD.shape
        if size == 1:
            return tokens_NTD
        rows, columns = grid or square_grid(tokens)
        if rows * columns != tokens or rows % size or columns % size:
            raise InvalidRequest(
                f"a verifier that merges {size} x {size} tokens reads images whose sides have a multiple of {size} "
                f"tokens, not {_describe(grid, tokens)}: choose another height and width"
            )
        squares = tokens_NTD.reshape(count, rows // size, size, columns // size, size, width).transpose(2, 3)
        return squares.reshape(count, tokens // size**2, size**2 * width)


def square_grid(tokens: int) -> Grid:
    """Return the grid of tokens that are a square."""
    return math.isqrt(tokens), math.isqrt(tokens)


def _describe(grid: Grid | None, tokens: int) -> str:
    return f"{tokens} tokens in all" if grid is None else f"{grid[0]} rows of {grid[1]} tokens"
