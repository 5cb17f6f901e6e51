"""FLUX.2's transformer in two halves, with cuts in both of its parts."""

from typing import Any

import pytest
import torch
from diffusers import Flux2Transformer2DModel
from diffusers.models.transformers.transformer_flux2 import Flux2SingleTransformerBlock
from tests.generators.contract import SplitContract
from tests.tiny_flux import new_flux2_transformer
from torch import Tensor, nn

from forejudge.generators import flux2_split
from forejudge.generators.flux2_split import Flux2Input

VARIANTS: dict[str, dict[str, Any]] = {
    "as FLUX.2-klein": {},
    "guidance embedded, but not given": {"guidance_embeds": True},
    "no single blocks": {"num_single_layers": 0},
}


@pytest.fixture(scope="module", params=list(VARIANTS))
def transformer(request: pytest.FixtureRequest) -> Flux2Transformer2DModel:
    return new_flux2_transformer(**VARIANTS[request.param])


class TestFlux2Split(SplitContract):
    split = flux2_split
    shared = ("rotary",)

    def inputs(self, transformer: Flux2Transformer2DModel, count: int) -> Flux2Input:
        """Pictures of 4 x 2 tokens at different times."""
        draw, dtype, config = torch.Generator().manual_seed(count), transformer.dtype, transformer.config
        one = torch.arange(1)
        return Flux2Input(
            torch.randn(count, 8, config.in_channels, generator=draw).to(dtype),
            torch.randn(count, 5, config.joint_attention_dim, generator=draw).to(dtype),
            torch.linspace(1, 0.3, count).to(dtype),
            torch.cartesian_prod(one, one, one, torch.arange(5)),
            torch.cartesian_prod(one, torch.arange(4), torch.arange(2), one),
        )

    def forward(self, transformer: Flux2Transformer2DModel, given: Flux2Input) -> Tensor:
        output: Tensor = transformer(
            hidden_states=given.latents_NTC,
            timestep=given.timestep_N,
            guidance=None,
            encoder_hidden_states=given.text_NLD,
            txt_ids=given.text_ids_L4,
            img_ids=given.image_ids_T4,
            return_dict=False,
        )[0]
        return output

    def blocks(self, transformer: Flux2Transformer2DModel) -> list[nn.Module]:
        return [*transformer.transformer_blocks, *transformer.single_transformer_blocks]

    def hidden_of(self, block: nn.Module, output: Any) -> Tensor:
        if isinstance(block, Flux2SingleTransformerBlock):
            return output[:, 5:]
        return output[1]
