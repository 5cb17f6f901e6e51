"""What a dtype must not round: statistics of hidden states, and the frequencies of rotary positions."""

from collections.abc import Callable
from typing import Self

from torch import Tensor, nn


class ExactBuffers(nn.Module):
    """A module whose buffers, and those of its parts, move with the weights but keep their dtype.

    float16 does not hold every variance, and in bfloat16 rotary frequencies are off by radians after 1000 tokens.
    """

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        kept = [(module, dict(module.named_buffers(recurse=False))) for module in self.modules()]
        super()._apply(fn, recurse)
        for module, buffers in kept:
            for name, buffer in buffers.items():
                setattr(module, name, buffer.to(getattr(module, name).device))
        return self
