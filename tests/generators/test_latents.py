"""Decoding latents: images as the pipeline makes them, and None for those that are not finite."""

import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from diffusers.image_processor import VaeImageProcessor
from torch import Tensor, nn

from forejudge.generators.latents import decode_latents


class Doubling(nn.Module):
    """An autoencoder that doubles each value: 2e38 is finite before it, and infinite after it."""

    dtype, device = torch.float32, torch.device("cpu")

    def decode(self, latents_NCHW: Tensor, return_dict: bool) -> tuple[Tensor]:
        return (latents_NCHW[:, :3] * 2,)


def decode(latents_NCHW: Tensor) -> tuple:
    freed: list[bool] = []
    pipeline = SimpleNamespace(image_processor=VaeImageProcessor(), maybe_free_model_hooks=lambda: freed.append(True))
    images = decode_latents(Doubling(), pipeline, latents_NCHW, (8, 8))
    assert freed, "offloaded models go back also after a broken image"
    return images


@pytest.mark.parametrize("channel", [0, 3])
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, 2e38])
def test_a_single_value_that_is_not_finite_breaks_its_image_alone(value: float, channel: int) -> None:
    latents_NCHW = torch.randn(3, 4, 8, 8, generator=torch.manual_seed(0)) / 4
    expected = decode(latents_NCHW)
    latents_NCHW[1, channel, 4, 4] = value
    images = decode(latents_NCHW)
    is_broken = not math.isfinite(value) or channel == 0  # the decoder reads three of the four channels
    assert (images[1] is None) is is_broken
    for row in (0, 2):
        assert np.array_equal(np.asarray(images[row]), np.asarray(expected[row]))
