"""`Flux2Transformer2DModel.forward` in two halves, cut out of its block loops (diffusers, transformer_flux2.py).

suffix(prefix(x)) equals the library's forward bit for bit at the same batch, for every cut. Blocks are counted through
both parts: the double-stream ones come first, then the single-stream ones. T tokens are those of the picture, row by
row; E is the width of a modulation.
"""

from dataclasses import dataclass, replace

import torch
from diffusers import Flux2Transformer2DModel
from torch import Tensor


@dataclass(frozen=True)
class Flux2Input:
    """What the transformer takes: N latents in packed patches with their text, and times (N,) in [0, 1].

    Positions of text and picture are the same for all N.
    """

    latents_NTC: Tensor
    text_NLD: Tensor
    timestep_N: Tensor
    text_ids_L4: Tensor
    image_ids_T4: Tensor


@dataclass(frozen=True)
class Flux2Hidden:
    """A forward pass stopped after some blocks, with all that the others need. The text moves on with the picture.

    All blocks of one kind are modulated alike.
    """

    hidden_NTD: Tensor
    text_NLD: Tensor
    time_ND: Tensor
    double_image_NE: Tensor
    double_text_NE: Tensor
    single_NE: Tensor
    rotary: tuple[Tensor, Tensor]  # cosines and sines of all positions, the same for all N

    def __getitem__(self, rows: list[int]) -> "Flux2Hidden":
        return Flux2Hidden(
            self.hidden_NTD[rows],
            self.text_NLD[rows],
            self.time_ND[rows],
            self.double_image_NE[rows],
            self.double_text_NE[rows],
            self.single_NE[rows],
            self.rotary,
        )


def prefix(transformer: Flux2Transformer2DModel, inputs: Flux2Input, num_blocks: int) -> Flux2Hidden:
    """Run the first `num_blocks` blocks (0 to all)."""
    time_ND = transformer.time_guidance_embed(inputs.timestep_N.to(inputs.latents_NTC.dtype) * 1000, None)
    text_rotary, image_rotary = transformer.pos_embed(inputs.text_ids_L4), transformer.pos_embed(inputs.image_ids_T4)
    start = Flux2Hidden(
        transformer.x_embedder(inputs.latents_NTC),
        transformer.context_embedder(inputs.text_NLD),
        time_ND,
        transformer.double_stream_modulation_img(time_ND),
        transformer.double_stream_modulation_txt(time_ND),
        transformer.single_stream_modulation(time_ND),
        (torch.cat((text_rotary[0], image_rotary[0])), torch.cat((text_rotary[1], image_rotary[1]))),
    )
    return run_blocks(transformer, start, 0, num_blocks)


def run_blocks(transformer: Flux2Transformer2DModel, state: Flux2Hidden, first: int, last: int) -> Flux2Hidden:
    """Run blocks first..last-1 on a state that stands before block `first`."""
    hidden_NTD, text_NLD = state.hidden_NTD, state.text_NLD
    for block in transformer.transformer_blocks[first:last]:
        text_NLD, hidden_NTD = block(hidden_NTD, text_NLD, state.double_image_NE, state.double_text_NE, state.rotary)
    double, tokens = len(transformer.transformer_blocks), text_NLD.shape[1]
    singles = transformer.single_transformer_blocks[max(first - double, 0) : max(last - double, 0)]
    if len(singles):
        joint_NTD = torch.cat((text_NLD, hidden_NTD), dim=1)
        for block in singles:
            joint_NTD = block(joint_NTD, None, state.single_NE, state.rotary)
        text_NLD, hidden_NTD = joint_NTD[:, :tokens], joint_NTD[:, tokens:]
    return replace(state, hidden_NTD=hidden_NTD, text_NLD=text_NLD)


def suffix(transformer: Flux2Transformer2DModel, state: Flux2Hidden, num_blocks: int) -> Tensor:
    """Go on from a state after `num_blocks` blocks to the transformer's output, packed as its input (N, T, C)."""
    count = len(transformer.transformer_blocks) + len(transformer.single_transformer_blocks)
    state = run_blocks(transformer, state, num_blocks, count)
    output: Tensor = transformer.proj_out(transformer.norm_out(state.hidden_NTD, state.time_ND))
    return output
