"""The work of models that are not here: their own classes count, on the meta device, what they would do."""

from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import nn

from forejudge.generators.text_cache import TextCache
from forejudge.profiling.flops import count_flops


@dataclass(frozen=True)
class TransformerWork:
    """Floating-point operations of one forward pass: before the first block, in each of them, after the last one."""

    before: int
    blocks: tuple[int, ...]
    after: int

    @property
    def whole(self) -> int:
        """From latents to the output."""
        return self.of_prefix(len(self.blocks)) + self.after

    def of_prefix(self, blocks: int) -> int:
        """To the hidden state after so many blocks."""
        return self.before + sum(self.blocks[:blocks])


@torch.no_grad()
def transformer_work(split: Any, transformer: nn.Module, inputs: Any, num_blocks: int) -> TransformerWork:
    """`split` is the module that cuts this transformer, with prefix, run_blocks and suffix."""
    state = split.prefix(transformer, inputs, 0)
    return TransformerWork(
        before=count_flops(partial(split.prefix, transformer, inputs, 0)),
        blocks=tuple(
            count_flops(partial(split.run_blocks, transformer, state, block, block + 1)) for block in range(num_blocks)
        ),
        after=count_flops(partial(split.suffix, transformer, state, num_blocks)),
    )


def text_flops(model: nn.Module, tokens: int, known: int = 0) -> int:
    """Of a text model that reads so many tokens once, after others that a causal one has read before."""
    if known:
        before = TextCache.of(model, [0] * known, torch.device("meta"))
        return count_flops(partial(before.states_after, model, known, [0] * tokens))
    ids_NL = torch.zeros(1, tokens, dtype=torch.long, device="meta")
    return count_flops(lambda: model(input_ids=ids_NL))
