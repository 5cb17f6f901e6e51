"""`PixArtTransformer2DModel.forward` in two halves, cut out of its block loop (diffusers, pixart_transformer_2d.py).

suffix(prefix(x)) equals the library's forward bit for bit at the same batch, for every cut.
"""

from dataclasses import dataclass, replace

from diffusers import PixArtTransformer2DModel
from torch import Tensor

from forejudge.generators.adaln_single import AdaLNSingleHidden, mask_bias
from forejudge.generators.patches import unpatchified


@dataclass(frozen=True)
class PixArtInput:
    """What the transformer takes: N latents with their text (N, L, D_text), mask (N, L) or none, and timesteps (N,).

    `resolution_N2` (height, width) and `aspect_ratio_N1` are pixels and their ratio, for models of 1024 px.
    """

    latents_NCHW: Tensor
    text_NLD: Tensor
    mask_NL: Tensor | None
    timestep_N: Tensor
    resolution_N2: Tensor | None = None
    aspect_ratio_N1: Tensor | None = None


def prefix(transformer: PixArtTransformer2DModel, inputs: PixArtInput, num_blocks: int) -> AdaLNSingleHidden:
    """Run the first `num_blocks` blocks (0 to all)."""
    patch = transformer.config.patch_size
    count, _, height, width = inputs.latents_NCHW.shape
    hidden_NTD = transformer.pos_embed(inputs.latents_NCHW)
    modulation_NE, time_ND = transformer.adaln_single(
        inputs.timestep_N,
        {"resolution": inputs.resolution_N2, "aspect_ratio": inputs.aspect_ratio_N1},
        batch_size=count,
        hidden_dtype=hidden_NTD.dtype,
    )
    text_NLD = inputs.text_NLD
    if transformer.caption_projection is not None:
        text_NLD = transformer.caption_projection(text_NLD)
    start = AdaLNSingleHidden(
        hidden_NTD,
        text_NLD,
        mask_bias(inputs.mask_NL, inputs.latents_NCHW.dtype),
        modulation_NE,
        time_ND,
        (height // patch, width // patch),
    )
    return run_blocks(transformer, start, 0, num_blocks)


def run_blocks(
    transformer: PixArtTransformer2DModel, state: AdaLNSingleHidden, first: int, last: int
) -> AdaLNSingleHidden:
    """Run blocks first..last-1 on a state that stands before block `first`."""
    hidden_NTD = state.hidden_NTD
    for block in transformer.transformer_blocks[first:last]:
        hidden_NTD = block(
            hidden_NTD,
            encoder_hidden_states=state.text_NLD,
            encoder_attention_mask=state.bias_N1L,
            timestep=state.modulation_NE,
        )
    return replace(state, hidden_NTD=hidden_NTD)


def suffix(transformer: PixArtTransformer2DModel, state: AdaLNSingleHidden, num_blocks: int) -> Tensor:
    """Go on from a state after `num_blocks` blocks to the transformer's output (N, C, H, W)."""
    state = run_blocks(transformer, state, num_blocks, len(transformer.transformer_blocks))
    table = transformer.scale_shift_table[None]
    shift_N1D, scale_N1D = (table + state.time_ND[:, None].to(table.device)).chunk(2, dim=1)
    hidden_NTD = transformer.norm_out(state.hidden_NTD)
    hidden_NTD = hidden_NTD * (1 + scale_N1D.to(hidden_NTD.device)) + shift_N1D.to(hidden_NTD.device)
    return unpatchified(transformer.proj_out(hidden_NTD), state.grid, transformer.config.patch_size)
