"""`SD3Transformer2DModel.forward` in two halves, cut out of its block loop (diffusers, transformer_sd3.py).

suffix(prefix(x)) equals the library's forward bit for bit at the same batch, for every cut. P is the width of the
pooled text.
"""

from dataclasses import dataclass, replace

from diffusers import SD3Transformer2DModel
from torch import Tensor

from forejudge.generators.patches import unpatchified


@dataclass(frozen=True)
class SD3Input:
    """What the transformer takes: N latents with their text (N, L, D_text), pooled text, and timesteps (N,)."""

    latents_NCHW: Tensor
    text_NLD: Tensor
    pooled_NP: Tensor
    timestep_N: Tensor


@dataclass(frozen=True)
class SD3Hidden:
    """A forward pass stopped after some blocks, with all that the others need. The text moves on with the picture."""

    hidden_NTD: Tensor
    text_NLD: Tensor | None  # None after the last block, which leaves no text
    time_ND: Tensor  # with pooled text
    grid: tuple[int, int]

    def __getitem__(self, rows: list[int]) -> "SD3Hidden":
        text_NLD = None if self.text_NLD is None else self.text_NLD[rows]
        return SD3Hidden(self.hidden_NTD[rows], text_NLD, self.time_ND[rows], self.grid)


def prefix(transformer: SD3Transformer2DModel, inputs: SD3Input, num_blocks: int) -> SD3Hidden:
    """Run the first `num_blocks` blocks (0 to all)."""
    patch = transformer.config.patch_size
    height, width = inputs.latents_NCHW.shape[-2:]
    start = SD3Hidden(
        transformer.pos_embed(inputs.latents_NCHW).contiguous(),
        transformer.context_embedder(inputs.text_NLD),
        transformer.time_text_embed(inputs.timestep_N, inputs.pooled_NP),
        (height // patch, width // patch),
    )
    return run_blocks(transformer, start, 0, num_blocks)


def run_blocks(transformer: SD3Transformer2DModel, state: SD3Hidden, first: int, last: int) -> SD3Hidden:
    """Run blocks first..last-1 on a state that stands before block `first`."""
    hidden_NTD, text_NLD = state.hidden_NTD, state.text_NLD
    for block in transformer.transformer_blocks[first:last]:
        text_NLD, hidden_NTD = block(hidden_NTD, text_NLD, state.time_ND)
    return replace(state, hidden_NTD=hidden_NTD, text_NLD=text_NLD)


def suffix(transformer: SD3Transformer2DModel, state: SD3Hidden, num_blocks: int) -> Tensor:
    """Go on from a state after `num_blocks` blocks to the transformer's output (N, C, H, W)."""
    state = run_blocks(transformer, state, num_blocks, len(transformer.transformer_blocks))
    patches_NTE = transformer.proj_out(transformer.norm_out(state.hidden_NTD, state.time_ND))
    return unpatchified(patches_NTE, state.grid, transformer.config.patch_size)
