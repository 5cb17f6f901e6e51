"""From hidden states to the language model's embeddings: standardise, then LLaVA's `mlp2x_gelu`."""

from collections.abc import Callable
from typing import Self

import torch
from torch import Tensor, nn

_EPSILON = 1e-6


class Connector(nn.Module):
    """Two linear layers with an exact GELU between, over states standardised per channel.

    The recorded mean and variance are part of the weights: a checkpoint without them does not load.
    """

    mean_D: Tensor
    variance_D: Tensor

    def __init__(self, width: int, embedding_width: int) -> None:
        super().__init__()
        self.register_buffer("mean_D", torch.zeros(width))
        self.register_buffer("variance_D", torch.ones(width))
        self.layers = nn.Sequential(
            nn.Linear(width, embedding_width),
            nn.GELU(),
            nn.Linear(embedding_width, embedding_width),
        )

    def set_statistics(self, mean_D: Tensor, variance_D: Tensor) -> None:
        """Record the mean and variance of each channel of the states to be read."""
        self.mean_D.copy_(mean_D)
        self.variance_D.copy_(variance_D)

    def forward(self, hidden_NTD: Tensor) -> Tensor:
        """(N, T, D) to (N, T, embedding width)."""
        standard_NTD = (hidden_NTD.float() - self.mean_D) / torch.sqrt(self.variance_D + _EPSILON)
        embedded: Tensor = self.layers(standard_NTD.to(next(self.layers.parameters()).dtype))
        return embedded

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        """Moved with the weights, but never rounded with them: float16 does not hold every variance."""
        statistics = self.mean_D, self.variance_D
        super()._apply(fn, recurse)
        self.mean_D, self.variance_D = (each.to(self.mean_D.device) for each in statistics)
        return self
