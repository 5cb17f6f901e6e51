"""Nouns: stages have an order, candidates are selected by row."""

import random
from typing import Any

import torch
from PIL import Image

from forejudge.types import IMAGE, NOISE, Candidates, Stage, latent_stage, prefix_stage


def test_stages_have_the_order_of_generation() -> None:
    way = [
        NOISE,
        prefix_stage(1),
        prefix_stage(8),
        latent_stage(),
        prefix_stage(1, step=1),
        latent_stage(1),
        IMAGE,
    ]
    shuffled = random.Random(0).sample(way, len(way))
    assert sorted(shuffled) == way


def test_stages_describe_themselves() -> None:
    stages = [NOISE, prefix_stage(8), prefix_stage(3, step=1), latent_stage(1), IMAGE]
    assert [str(stage) for stage in stages] == [
        "noise",
        "prefix(8 blocks, step 0)",
        "prefix(3 blocks, step 1)",
        "latent(step 1)",
        "image",
    ]


def four_candidates() -> Candidates:
    images = tuple(Image.new("L", (1, 1), shade) for shade in range(4))
    views: dict[Stage, Any] = {prefix_stage(2): torch.arange(4.0).view(4, 1, 1), IMAGE: images}
    return Candidates((10, 11, 12, 13), IMAGE, views, torch.arange(4))


def test_rows_are_selected_in_order_from_everything() -> None:
    chosen = four_candidates()[[3, 1]]
    assert len(chosen) == 2
    assert chosen.seeds == (13, 11)
    assert chosen.state.tolist() == [3, 1]
    assert chosen.tensor(prefix_stage(2)).flatten().tolist() == [3, 1]
    assert [image.getpixel((0, 0)) for image in chosen.images] == [3, 1]


def test_only_images_are_kept_of_the_views() -> None:
    kept = four_candidates().without_views()
    assert set(kept.views) == {IMAGE}
    assert kept.state.tolist() == [0, 1, 2, 3]
