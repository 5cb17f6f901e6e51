"""Costs projected to the published sizes of SANA-Sprint 1.6B."""

import pytest

from research.figures.projected_costs import BLOCKS, InputPoint, sana_sprint_flops


def test_the_work_of_the_published_models() -> None:
    """TFLOP by PyTorch's own counter. The paper saves 62.9 % against a baseline that encodes the prompt every time."""
    work = sana_sprint_flops()
    in_tera = {name: round(value / 1e12, 2) for name, value in vars(work).items()}
    assert in_tera == {
        "encode": 2.16,
        "block": 0.15,
        "decode": 8.37,
        "clip": 0.38,
        "language_model_on_hidden": 0.91,
        "language_model_on_patches": 0.52,
    }
    fixed, each = work.search_flops(InputPoint("hidden", 8))  # the paper's cut
    fixed_clip, each_clip = work.search_flops(InputPoint("clip", BLOCKS))
    assert fixed - fixed_clip == work.decode + 12 * work.block, "the winner is finished once"
    assert 1 - each / each_clip == pytest.approx(0.83, abs=0.01)
    assert work.search_flops(InputPoint("hidden", BLOCKS)) == work.search_flops(InputPoint("latent", BLOCKS))
