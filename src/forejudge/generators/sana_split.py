"""`SanaTransformer2DModel.forward` in two halves, cut out of its block loop (diffusers, sana_transformer.py).

suffix(prefix(x)) equals the library's forward bit for bit at the same batch, for every cut.
"""

from dataclasses import dataclass, replace

from diffusers import SanaTransformer2DModel
from torch import Tensor

from forejudge.generators.adaln_single import AdaLNSingleHidden, mask_bias
from forejudge.generators.patches import unpatchified


@dataclass(frozen=True)
class SanaInput:
    """What the transformer takes: N latents, their text (N, L, D_text), mask (N, L) or none, times, guidances (N,)."""

    latents_NCHW: Tensor
    text_NLD: Tensor
    mask_NL: Tensor | None
    timestep_N: Tensor
    guidance_N: Tensor


def prefix(transformer: SanaTransformer2DModel, inputs: SanaInput, num_blocks: int) -> AdaLNSingleHidden:
    """Run the first `num_blocks` blocks (0 to all)."""
    patch = transformer.config.patch_size
    height, width = inputs.latents_NCHW.shape[-2:]
    hidden_NTD = transformer.patch_embed(inputs.latents_NCHW)
    modulation_NE, time_ND = transformer.time_embed(
        inputs.timestep_N, guidance=inputs.guidance_N, hidden_dtype=hidden_NTD.dtype
    )
    text_NLD = transformer.caption_norm(transformer.caption_projection(inputs.text_NLD))
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
    transformer: SanaTransformer2DModel, state: AdaLNSingleHidden, first: int, last: int
) -> AdaLNSingleHidden:
    """Run blocks first..last-1 on a state that stands before block `first`."""
    hidden_NTD = state.hidden_NTD
    for block in transformer.transformer_blocks[first:last]:
        hidden_NTD = block(hidden_NTD, None, state.text_NLD, state.bias_N1L, state.modulation_NE, *state.grid)
    return replace(state, hidden_NTD=hidden_NTD)


def suffix(transformer: SanaTransformer2DModel, state: AdaLNSingleHidden, num_blocks: int) -> Tensor:
    """Go on from a state after `num_blocks` blocks to the transformer's output (N, C, H, W)."""
    state = run_blocks(transformer, state, num_blocks, len(transformer.transformer_blocks))
    hidden_NTD = transformer.norm_out(state.hidden_NTD, state.time_ND, transformer.scale_shift_table)
    return unpatchified(transformer.proj_out(hidden_NTD), state.grid, transformer.config.patch_size)
