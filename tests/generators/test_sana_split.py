"""SANA's transformer in two halves."""

from typing import Any

import pytest
import torch
from diffusers import SanaTransformer2DModel
from tests.generators.contract import SplitContract
from torch import Tensor

from forejudge.generators import sana_split
from forejudge.generators.sana_split import SanaInput

VARIANTS: dict[str, dict[str, Any]] = {
    "as the miniature": {"interpolation_scale": 1, "qk_norm": "rms_norm_across_heads"},
    "without query and key norms": {"qk_norm": None},
    "with patches of 2": {"patch_size": 2, "qk_norm": "rms_norm_across_heads"},
    "narrow and tall": {"sample_size": 4, "interpolation_scale": 1, "qk_norm": "rms_norm_across_heads"},
}


@pytest.fixture(scope="module", params=list(VARIANTS))
def transformer(request: pytest.FixtureRequest) -> SanaTransformer2DModel:
    """An untrained transformer whose output depends on all that goes in."""
    torch.manual_seed(0)
    options = {"sample_size": 8, "guidance_embeds": True, "timestep_scale": 1000.0, **VARIANTS[request.param]}
    return SanaTransformer2DModel(
        in_channels=16,
        out_channels=16,
        num_attention_heads=2,
        attention_head_dim=32,
        num_layers=4,
        num_cross_attention_heads=2,
        cross_attention_head_dim=32,
        cross_attention_dim=64,
        caption_channels=24,
        **options,
    ).eval()


class TestSanaSplit(SplitContract):
    split = sana_split
    shared = ("grid",)

    def inputs(self, transformer: SanaTransformer2DModel, count: int) -> SanaInput:
        """A batch whose texts have different lengths, padded on the right, at different times."""
        draw, dtype = torch.Generator().manual_seed(count), transformer.dtype
        lengths = torch.arange(3, 3 + 4 * count, 4)
        return SanaInput(
            torch.randn(count, 16, 8, 4, generator=draw).to(dtype),
            torch.randn(count, 20, 24, generator=draw).to(dtype),
            (torch.arange(20) < lengths[:, None]).long(),
            torch.linspace(1, 0.3, count),
            torch.full((count,), 0.45).to(dtype),
        )

    def forward(self, transformer: SanaTransformer2DModel, given: SanaInput) -> Tensor:
        output: Tensor = transformer(
            given.latents_NCHW,
            encoder_hidden_states=given.text_NLD,
            encoder_attention_mask=given.mask_NL,
            timestep=given.timestep_N,
            guidance=given.guidance_N,
            return_dict=False,
        )[0]
        return output
