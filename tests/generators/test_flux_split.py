"""FLUX.1's transformer in two halves, with cuts in both of its parts."""

from typing import Any

import pytest
import torch
from diffusers import FluxTransformer2DModel
from tests.generators.contract import SplitContract
from tests.tiny_flux import new_flux_transformer
from torch import Tensor, nn

from forejudge.generators import flux_split
from forejudge.generators.flux_split import FluxInput

VARIANTS: dict[str, dict[str, Any]] = {
    "without guidance": {},
    "with guidance": {"guidance_embeds": True},
    "no single blocks": {"num_single_layers": 0},
}


@pytest.fixture(scope="module", params=list(VARIANTS))
def transformer(request: pytest.FixtureRequest) -> FluxTransformer2DModel:
    return new_flux_transformer(**VARIANTS[request.param])


class TestFluxSplit(SplitContract):
    split = flux_split
    shared = ("rotary",)

    def inputs(self, transformer: FluxTransformer2DModel, count: int) -> FluxInput:
        """Pictures of 4 x 2 tokens at different times."""
        draw, dtype, config = torch.Generator().manual_seed(count), transformer.dtype, transformer.config
        places = torch.cartesian_prod(torch.zeros(1), torch.arange(4.0), torch.arange(2.0))
        return FluxInput(
            torch.randn(count, 8, config.in_channels, generator=draw).to(dtype),
            torch.randn(count, 5, config.joint_attention_dim, generator=draw).to(dtype),
            torch.randn(count, config.pooled_projection_dim, generator=draw).to(dtype),
            torch.linspace(1, 0.3, count).to(dtype),
            torch.linspace(2, 5, count) if config.guidance_embeds else None,
            torch.zeros(5, 3).to(dtype),
            places.to(dtype),
        )

    def forward(self, transformer: FluxTransformer2DModel, given: FluxInput) -> Tensor:
        output: Tensor = transformer(
            hidden_states=given.latents_NTC,
            timestep=given.timestep_N,
            guidance=given.guidance_N,
            pooled_projections=given.pooled_NP,
            encoder_hidden_states=given.text_NLD,
            txt_ids=given.text_ids_L3,
            img_ids=given.image_ids_T3,
            return_dict=False,
        )[0]
        return output

    def blocks(self, transformer: FluxTransformer2DModel) -> list[nn.Module]:
        return [*transformer.transformer_blocks, *transformer.single_transformer_blocks]

    def hidden_of(self, block: nn.Module, output: tuple[Tensor, Tensor]) -> Tensor:
        return output[1]
