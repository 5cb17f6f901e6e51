"""A transformer's forward pass in two halves that can be cut after any block."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Generic, Protocol, Self, TypeVar

from torch import Tensor, nn


class Hidden(Protocol):
    """A forward pass stopped after some blocks, with everything the remaining blocks need; indexed by rows."""

    @property
    def hidden_NTD(self) -> Tensor: ...

    def __getitem__(self, rows: list[int]) -> Self: ...


TransformerT = TypeVar("TransformerT", bound=nn.Module)
InputsT = TypeVar("InputsT")
HiddenT = TypeVar("HiddenT", bound=Hidden)


class SplitTransformer(ABC, Generic[TransformerT, InputsT, HiddenT]):
    """Split one transformer class of diffusers around its block loop.

    An architecture writes `embed`, `run_blocks` and `head`. `suffix(prefix(x))` equals the library's own forward bit
    for bit at the same batch, at every cut.
    """

    block_lists: Sequence[str] = ("transformer_blocks",)  # attributes that hold the blocks, in the order they run

    @abstractmethod
    def embed(self, transformer: TransformerT, inputs: InputsT) -> HiddenT:
        """Return the state before block 0."""

    @abstractmethod
    def run_blocks(self, transformer: TransformerT, hidden: HiddenT, start_block: int, last: int) -> HiddenT:
        """Run blocks `start_block` to `last` - 1 on a state that stands before block `start_block`."""

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
