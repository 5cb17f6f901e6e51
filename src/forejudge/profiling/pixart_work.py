"""The work of PixArt-alpha at 512 px, of which PixArt-Alpha-DMD is one, counted without any weights."""

import torch
from diffusers import PixArtTransformer2DModel

from forejudge.generators.pixart_split import PixArtInput, prefix, run_blocks
from forejudge.profiling.flops import count_flops

PIXART_512: dict[str, int] = {
    "num_layers": 28,
    "num_attention_heads": 16,
    "attention_head_dim": 72,
    "cross_attention_dim": 1152,
    "caption_channels": 4096,
    "in_channels": 4,
    "out_channels": 8,
    "sample_size": 64,
    "patch_size": 2,
}
"""What its transformer is made of, as diffusers names it."""
TEXT_TOKENS = 120  # that it reads, padding included


def pixart_512_input() -> PixArtInput:
    """What its transformer is given for one candidate; of use on the meta device."""
    side, channels = PIXART_512["sample_size"], PIXART_512["in_channels"]
    return PixArtInput(
        torch.zeros(1, channels, side, side),
        torch.zeros(1, TEXT_TOKENS, PIXART_512["caption_channels"]),
        torch.zeros(1, TEXT_TOKENS),
        torch.zeros(1),
    )


@torch.no_grad()
def pixart_512_block() -> int:
    """Floating-point operations of one block for one candidate; all blocks are alike."""
    with torch.device("meta"):
        transformer = PixArtTransformer2DModel(**PIXART_512)
        state = prefix(transformer, pixart_512_input(), 0)
        return count_flops(lambda: run_blocks(transformer, state, 0, 1))
