"""`SanaTransformer2DModel.forward` in two halves, cut out of its block loop (diffusers, sana_transformer.py).

suffix(prefix(x)) equals the library's forward bit for bit at the same batch, for every cut.
"""

from dataclasses import dataclass, replace

from diffusers import SanaTransformer2DModel
from torch import Tensor

_MASKED = -10000.0  # the library's bias on masked text tokens


@dataclass(frozen=True)
class SanaInput:
    """What the transformer takes: N latents with their text (N, L, D_text), mask (N, L), times and guidances (N,)."""

    latents_NCHW: Tensor
    text_NLD: Tensor
    mask_NL: Tensor
    timestep_N: Tensor
    guidance_N: Tensor


@dataclass(frozen=True)
class SanaHidden:
    """A forward pass stopped after some blocks, with all that the others need."""

    hidden_NTD: Tensor
    text_NLD: Tensor  # projected and normalised
    bias_N1L: Tensor
    modulation_NE: Tensor  # six shifts, scales and gates in a row
    time_ND: Tensor
    grid: tuple[int, int]

    def __getitem__(self, rows: list[int]) -> "SanaHidden":
        return SanaHidden(
            self.hidden_NTD[rows],
            self.text_NLD[rows],
            self.bias_N1L[rows],
            self.modulation_NE[rows],
            self.time_ND[rows],
            self.grid,
        )


def prefix(transformer: SanaTransformer2DModel, inputs: SanaInput, num_blocks: int) -> SanaHidden:
    """Run the first `num_blocks` blocks (0 to all)."""
    mask_bias = (1 - inputs.mask_NL.to(inputs.latents_NCHW.dtype)) * _MASKED
    patch = transformer.config.patch_size
    height, width = inputs.latents_NCHW.shape[-2:]
    hidden_NTD = transformer.patch_embed(inputs.latents_NCHW)
    modulation_NE, time_ND = transformer.time_embed(
        inputs.timestep_N, guidance=inputs.guidance_N, hidden_dtype=hidden_NTD.dtype
    )
    text_NLD = transformer.caption_norm(transformer.caption_projection(inputs.text_NLD))
    start = SanaHidden(
        hidden_NTD,
        text_NLD,
        mask_bias.unsqueeze(1),
        modulation_NE,
        time_ND,
        (height // patch, width // patch),
    )
    return run_blocks(transformer, start, 0, num_blocks)


def run_blocks(transformer: SanaTransformer2DModel, state: SanaHidden, first: int, last: int) -> SanaHidden:
    """Run blocks first..last-1 on a state that stands before block `first`."""
    hidden_NTD = state.hidden_NTD
    for block in transformer.transformer_blocks[first:last]:
        hidden_NTD = block(hidden_NTD, None, state.text_NLD, state.bias_N1L, state.modulation_NE, *state.grid)
    return replace(state, hidden_NTD=hidden_NTD)


def suffix(transformer: SanaTransformer2DModel, state: SanaHidden, num_blocks: int) -> Tensor:
    """Go on from a state after `num_blocks` blocks to the transformer's output (N, C, H, W)."""
    state = run_blocks(transformer, state, num_blocks, len(transformer.transformer_blocks))
    hidden_NTD = transformer.norm_out(state.hidden_NTD, state.time_ND, transformer.scale_shift_table)
    patch, (rows, columns) = transformer.config.patch_size, state.grid
    output = transformer.proj_out(hidden_NTD).unflatten(1, (rows, columns))
    output = output.unflatten(-1, (patch, patch, -1)).permute(0, 5, 1, 3, 2, 4)
    return output.reshape(len(output), -1, rows * patch, columns * patch)
