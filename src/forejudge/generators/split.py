"""A transformer's forward pass split at its block loop: prefix and suffix, at any cut.

An architecture subclasses `SplitTransformer` and `HiddenState`; `AdaLNSingleHidden` is shared by SANA and PixArt.
E is the width of a modulation.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Generic, Self, TypeVar

import torch
from torch import Tensor, nn

from forejudge.generators.base import Architecture

_MASK_BIAS = -10000.0  # diffusers' bias on masked text tokens


@dataclass(frozen=True)
class HiddenState:
    """A forward pass stopped after some blocks, with everything the remaining blocks need; indexed by rows.

    A field that is a tensor has one row per candidate. What all candidates share is no bare tensor: an int, a tuple.
    """

    hidden_NTD: Tensor

    def __getitem__(self, rows: list[int]) -> Self:
        """Return the state of some candidates, in the order of `rows`."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return replace(self, **{name: value[rows] for name, value in values.items() if isinstance(value, Tensor)})


TransformerT = TypeVar("TransformerT", bound=nn.Module)
InputsT = TypeVar("InputsT")
HiddenT = TypeVar("HiddenT", bound=HiddenState)


class SplitTransformer(ABC, Generic[TransformerT, InputsT, HiddenT]):
    """Split of one transformer class of diffusers around its block loop.

    An architecture writes `architecture`, `embed`, `run_blocks` and `head`. `suffix(prefix(x))` equals the library's
    own forward bit for bit at the same batch, at every cut.
    """

    block_lists: Sequence[str] = ("transformer_blocks",)  # attributes that hold the blocks, in the order they run

    @abstractmethod
    def architecture(self, transformer: TransformerT) -> Architecture:
        """Describe a transformer by its config; it may be on the meta device."""

    @abstractmethod
    def embed(self, transformer: TransformerT, inputs: InputsT) -> HiddenT:
        """Return the state before block 0."""

    @abstractmethod
    def run_blocks(self, transformer: TransformerT, hidden: HiddenT, start_block: int, end_block: int) -> HiddenT:
        """Run blocks `start_block` to `end_block` - 1 on a state that stands before block `start_block`."""

    @abstractmethod
    def head(self, transformer: TransformerT, hidden: HiddenT) -> Tensor:
        """Return the transformer's output for a state after the last block, in the layout of the input latents."""

    def num_blocks(self, transformer: TransformerT) -> int:
        """Return the number of blocks, counted through all block lists."""
        return sum(len(getattr(transformer, name)) for name in self.block_lists)

    def prefix(self, transformer: TransformerT, inputs: InputsT, num_blocks: int) -> HiddenT:
        """Run the first `num_blocks` blocks (0 to all)."""
        return self.run_blocks(transformer, self.embed(transformer, inputs), 0, num_blocks)

    def suffix(self, transformer: TransformerT, hidden: HiddenT, num_blocks: int) -> Tensor:
        """Continue from a state after `num_blocks` blocks to the transformer's output."""
        return self.head(transformer, self.run_blocks(transformer, hidden, num_blocks, self.num_blocks(transformer)))


@dataclass(frozen=True)
class AdaLNSingleHidden(HiddenState):
    """Hidden state of a transformer whose blocks share one modulation by time (adaLN-single)."""

    text_NLD: Tensor  # as cross-attention reads it
    bias_N1L: Tensor | None  # on text tokens
    modulation_NE: Tensor  # six shifts, scales and gates side by side
    time_ND: Tensor
    grid: tuple[int, int]  # rows and columns of tokens


def mask_bias(mask_NL: Tensor | None, dtype: torch.dtype) -> Tensor | None:
    """Turn a mask of text tokens into the bias (N, 1, L) that cross-attention adds to its scores."""
    return None if mask_NL is None else ((1 - mask_NL.to(dtype)) * _MASK_BIAS).unsqueeze(1)
