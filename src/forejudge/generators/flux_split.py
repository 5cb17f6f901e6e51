"""`FluxTransformer2DModel.forward` in two halves, cut out of its block loops (diffusers, transformer_flux.py).

suffix(prefix(x)) equals the library's forward bit for bit at the same batch, for every cut. Blocks are counted through
both parts: the double-stream ones come first, then the single-stream ones. T tokens are those of the picture, row by
row; P is the width of the pooled text.
"""

from dataclasses import dataclass, replace

import torch
from diffusers import FluxTransformer2DModel
from torch import Tensor


@dataclass(frozen=True)
class FluxInput:
    """What the transformer takes: N latents in packed patches with their text, pooled text, times and guidances (N,).

    Positions of text and picture are the same for all N. Times lie in [0, 1]; guidance is None for a transformer that
    was distilled without.
    """

    latents_NTC: Tensor
    text_NLD: Tensor
    pooled_NP: Tensor
    timestep_N: Tensor
    guidance_N: Tensor | None
    text_ids_L3: Tensor
    image_ids_T3: Tensor


@dataclass(frozen=True)
class FluxHidden:
    """A forward pass stopped after some blocks, with all that the others need. The text moves on with the picture."""

    hidden_NTD: Tensor
    text_NLD: Tensor
    time_ND: Tensor  # with guidance and pooled text
    rotary: tuple[Tensor, Tensor]  # cosines and sines of all positions, the same for all N

    def __getitem__(self, rows: list[int]) -> "FluxHidden":
        return FluxHidden(self.hidden_NTD[rows], self.text_NLD[rows], self.time_ND[rows], self.rotary)


def prefix(transformer: FluxTransformer2DModel, inputs: FluxInput, num_blocks: int) -> FluxHidden:
    """Run the first `num_blocks` blocks (0 to all)."""
    hidden_NTD = transformer.x_embedder(inputs.latents_NTC)
    timestep_N = inputs.timestep_N.to(hidden_NTD.dtype) * 1000
    if inputs.guidance_N is None:
        time_ND = transformer.time_text_embed(timestep_N, inputs.pooled_NP)
    else:
        guidance_N = inputs.guidance_N.to(hidden_NTD.dtype) * 1000
        time_ND = transformer.time_text_embed(timestep_N, guidance_N, inputs.pooled_NP)
    text_NLD = transformer.context_embedder(inputs.text_NLD)
    rotary = transformer.pos_embed(torch.cat((inputs.text_ids_L3, inputs.image_ids_T3)))
    return run_blocks(transformer, FluxHidden(hidden_NTD, text_NLD, time_ND, rotary), 0, num_blocks)


def run_blocks(transformer: FluxTransformer2DModel, state: FluxHidden, first: int, last: int) -> FluxHidden:
    """Run blocks first..last-1 on a state that stands before block `first`."""
    hidden_NTD, text_NLD = state.hidden_NTD, state.text_NLD
    for block in [*transformer.transformer_blocks, *transformer.single_transformer_blocks][first:last]:
        text_NLD, hidden_NTD = block(hidden_NTD, text_NLD, state.time_ND, state.rotary)
    return replace(state, hidden_NTD=hidden_NTD, text_NLD=text_NLD)


def suffix(transformer: FluxTransformer2DModel, state: FluxHidden, num_blocks: int) -> Tensor:
    """Go on from a state after `num_blocks` blocks to the transformer's output, packed as its input (N, T, C)."""
    count = len(transformer.transformer_blocks) + len(transformer.single_transformer_blocks)
    state = run_blocks(transformer, state, num_blocks, count)
    output: Tensor = transformer.proj_out(transformer.norm_out(state.hidden_NTD, state.time_ND))
    return output
