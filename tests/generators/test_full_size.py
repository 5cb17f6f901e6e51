"""SANA-Sprint at its published size, with random weights: the halves are the whole there, too."""

from collections.abc import Callable

import pytest
import torch
from diffusers import SanaTransformer2DModel
from torch import Tensor

from forejudge.generators.sana_sprint import SanaInput, SanaSplit

BLOCKS, SIDE, TEXT_TOKENS = 20, 32, 300  # of 1.6B at 1024 px


def halves_and_whole(device: str, dtype: torch.dtype, count: int) -> Callable[[int], tuple[Tensor, Tensor]]:
    """For a cut: the output of the two halves, and of the library's forward pass."""
    torch.manual_seed(0)
    with torch.device(device):
        # The class's defaults are the published sizes.
        transformer = SanaTransformer2DModel(guidance_embeds=True, qk_norm="rms_norm_across_heads")
    transformer = transformer.to(dtype).eval()
    given = SanaInput(
        torch.randn(count, 32, SIDE, SIDE).to(device, dtype),
        torch.randn(count, TEXT_TOKENS, 2304).to(device, dtype),
        torch.ones(count, TEXT_TOKENS, dtype=torch.long, device=device),
        torch.full((count,), 1.0, device=device),
        torch.full((count,), 0.45, device=device, dtype=dtype),
    )

    @torch.no_grad()
    def both(cut: int) -> tuple[Tensor, Tensor]:
        whole = transformer(
            given.latents_NCHW,
            encoder_hidden_states=given.text_NLD,
            encoder_attention_mask=given.mask_NL,
            timestep=given.timestep_N,
            guidance=given.guidance_N,
            return_dict=False,
        )[0]
        return SanaSplit().suffix(transformer, SanaSplit().prefix(transformer, given, cut), cut), whole

    return both


@pytest.mark.slow
def test_on_a_cpu_after_8_of_20_blocks() -> None:
    halves, whole = halves_and_whole("cpu", torch.float32, count=1)(8)
    assert whole.shape == (1, 32, SIDE, SIDE)
    assert torch.equal(halves, whole)


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_on_a_gpu_after_any_of_several_cuts(dtype: torch.dtype) -> None:
    both = halves_and_whole("cuda", dtype, count=2)
    for cut in (1, 4, 8, 12, 16, BLOCKS):
        halves, whole = both(cut)
        assert torch.equal(halves, whole)
