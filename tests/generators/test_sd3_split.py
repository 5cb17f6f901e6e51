"""Stable Diffusion 3's transformer in two halves."""

from typing import Any

import pytest
import torch
from diffusers import SD3Transformer2DModel
from tests.generators.contract import SplitContract
from tests.tiny_sd3 import new_sd3_transformer
from torch import Tensor, nn

from forejudge.generators import sd3_split
from forejudge.generators.sd3_split import SD3Input

VARIANTS: dict[str, dict[str, Any]] = {
    "as SD3.5 large": {},
    "as SD3.5 medium": {"dual_attention_layers": (0, 1)},
    "as SD3": {"qk_norm": None},
}


@pytest.fixture(scope="module", params=list(VARIANTS))
def transformer(request: pytest.FixtureRequest) -> SD3Transformer2DModel:
    return new_sd3_transformer(**VARIANTS[request.param])


class TestSD3Split(SplitContract):
    split = sd3_split
    shared = ("grid",)

    def inputs(self, transformer: SD3Transformer2DModel, count: int) -> SD3Input:
        """Pictures of 4 x 2 tokens at different times."""
        draw, dtype, config = torch.Generator().manual_seed(count), transformer.dtype, transformer.config
        return SD3Input(
            torch.randn(count, config.in_channels, 8, 4, generator=draw).to(dtype),
            torch.randn(count, 5, config.joint_attention_dim, generator=draw).to(dtype),
            torch.randn(count, config.pooled_projection_dim, generator=draw).to(dtype),
            torch.linspace(1000, 300, count),
        )

    def forward(self, transformer: SD3Transformer2DModel, given: SD3Input) -> Tensor:
        output: Tensor = transformer(
            hidden_states=given.latents_NCHW,
            encoder_hidden_states=given.text_NLD,
            pooled_projections=given.pooled_NP,
            timestep=given.timestep_N,
            return_dict=False,
        )[0]
        return output

    def hidden_of(self, block: nn.Module, output: tuple[Tensor | None, Tensor]) -> Tensor:
        return output[1]
