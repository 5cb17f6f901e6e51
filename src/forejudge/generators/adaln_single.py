"""What transformers share that are modulated by one embedding of the time (adaLN-single), and are cut."""

from dataclasses import dataclass

import torch
from torch import Tensor

_MASK_BIAS = -10000.0  # the libraries' bias on masked text tokens


@dataclass(frozen=True)
class AdaLNSingleHidden:
    """A forward pass stopped after some blocks, with all that the others need."""

    hidden_NTD: Tensor
    text_NLD: Tensor  # as cross-attention reads it
    bias_N1L: Tensor | None
    modulation_NE: Tensor  # six shifts, scales and gates in a row
    time_ND: Tensor
    grid: tuple[int, int]

    def __getitem__(self, rows: list[int]) -> "AdaLNSingleHidden":
        return AdaLNSingleHidden(
            self.hidden_NTD[rows],
            self.text_NLD[rows],
            None if self.bias_N1L is None else self.bias_N1L[rows],
            self.modulation_NE[rows],
            self.time_ND[rows],
            self.grid,
        )


def mask_bias(mask_NL: Tensor | None, dtype: torch.dtype) -> Tensor | None:
    """A mask of text tokens as what cross-attention adds to its scores: (N, 1, L)."""
    return None if mask_NL is None else ((1 - mask_NL.to(dtype)) * _MASK_BIAS).unsqueeze(1)
