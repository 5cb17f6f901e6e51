"""PixArt's transformer in two halves."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from diffusers import PixArtTransformer2DModel
from tests.generators.contract import SplitContract
from tests.tiny_pixart import new_transformer
from torch import Tensor

from forejudge.generators import pixart_split
from forejudge.generators.pixart_split import PixArtInput

VARIANTS: dict[str, dict[str, Any]] = {
    "as published for 512 px": {"use_additional_conditions": False},
    "told the picture's size": {"use_additional_conditions": True},
    "with patches of 1": {"patch_size": 1},
    "without a projection of the text": {"caption_channels": None},
    "made for another size": {"sample_size": 4},
}


@pytest.fixture(scope="module", params=list(VARIANTS))
def transformer(request: pytest.FixtureRequest) -> PixArtTransformer2DModel:
    torch.manual_seed(0)
    return new_transformer(**VARIANTS[request.param])


class TestPixArtSplit(SplitContract):
    split = pixart_split
    shared = ("grid",)

    def inputs(self, transformer: PixArtTransformer2DModel, count: int) -> PixArtInput:
        """A batch whose texts have different lengths, padded on the right, at different times."""
        draw, dtype = torch.Generator().manual_seed(count), transformer.dtype
        text_width = transformer.config.caption_channels or transformer.config.cross_attention_dim
        given = PixArtInput(
            torch.randn(count, 4, 8, 4, generator=draw).to(dtype),
            torch.randn(count, 20, text_width, generator=draw).to(dtype),
            (torch.arange(20) < torch.arange(3, 3 + 4 * count, 4)[:, None]).long(),
            torch.linspace(400, 900, count).long(),
        )
        if not transformer.use_additional_conditions:
            return given
        sizes = torch.tensor([[64.0, 32.0]] * count, dtype=dtype)
        return replace(given, resolution_N2=sizes, aspect_ratio_N1=torch.full((count, 1), 2.0, dtype=dtype))

    def forward(self, transformer: PixArtTransformer2DModel, given: PixArtInput) -> Tensor:
        output: Tensor = transformer(
            given.latents_NCHW,
            encoder_hidden_states=given.text_NLD,
            encoder_attention_mask=given.mask_NL,
            timestep=given.timestep_N,
            added_cond_kwargs={"resolution": given.resolution_N2, "aspect_ratio": given.aspect_ratio_N1},
            return_dict=False,
        )[0]
        return output
