"""Verifier inputs: the right stage, its tokens in order, and names."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import CLIPImageProcessorPil, CLIPVisionModel

from forejudge.errors import CheckpointError, InvalidRequest, MismatchError
from forejudge.types import IMAGE, Candidates, latent_stage, prefix_stage
from forejudge.verifiers.inputs import HiddenStateInput, ImageFeaturesInput, InputWeights, build_verifier_input
from tests.support.doubles import ARCHITECTURE
from tests.support.tiny_preview import save_tiny_tower


@pytest.fixture
def tower(tmp_path: Path) -> Path:
    """A tiny CLIP vision tower of 16 patches, as a folder."""
    return save_tiny_tower(tmp_path / "tower")


def test_a_hidden_state_is_read_as_it_is() -> None:
    stage = prefix_stage(3)
    candidates = Candidates((0,), stage, {stage: torch.arange(6.0).view(1, 2, 3)}, None)
    verifier_input = build_verifier_input("hidden:3")
    assert verifier_input.stage == stage
    assert torch.equal(verifier_input.tokens(candidates), candidates.tensor(stage))
    assert verifier_input.width(ARCHITECTURE) == ARCHITECTURE.width


def test_blocks_that_a_generator_does_not_have_are_refused() -> None:
    assert HiddenStateInput(4).width(ARCHITECTURE) == 1
    with pytest.raises(MismatchError, match="after 5 blocks, but the generator has only 4"):
        HiddenStateInput(5).width(ARCHITECTURE)


def test_a_latent_is_a_token_for_each_place_row_by_row() -> None:
    stage = latent_stage()
    latents_NCHW = torch.arange(12.0).view(1, 3, 2, 2)
    tokens_NTD = build_verifier_input("latent").tokens(Candidates((0,), stage, {stage: latents_NCHW}, None))
    assert tokens_NTD.tolist() == [[[0, 4, 8], [1, 5, 9], [2, 6, 10], [3, 7, 11]]]


def test_an_image_is_read_from_the_towers_last_layer_but_one_without_the_class_token(tower: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (2, 64, 64, 3), dtype=np.uint8)
    images = tuple(Image.fromarray(each) for each in pixels)
    tokens_NTD = build_verifier_input("clip", InputWeights(tower)).tokens(
        Candidates((0, 1), IMAGE, {IMAGE: images}, None)
    )
    model, processor = CLIPVisionModel.from_pretrained(tower), CLIPImageProcessorPil.from_pretrained(tower)
    with torch.no_grad():
        states = model(**processor(list(images), return_tensors="pt"), output_hidden_states=True).hidden_states
    assert tokens_NTD.shape == (2, 16, 32)
    assert torch.equal(tokens_NTD, states[-2][:, 1:])


def test_a_tower_is_saved_and_loaded_and_never_trained(tower: Path, tmp_path: Path) -> None:
    verifier_input = ImageFeaturesInput.from_pretrained(tower)
    verifier_input.save_pretrained(tmp_path)
    again = ImageFeaturesInput.from_pretrained(tmp_path / "vision_tower")
    for name, weight in verifier_input.tower.state_dict().items():
        assert torch.equal(weight, again.tower.state_dict()[name])
    assert not any(weight.requires_grad for weight in again.tower.parameters())


@pytest.mark.parametrize("name", ["hidden", "hidden:", "hidden:0", "hidden:-1", "hidden:x", "latents", ""])
def test_another_name_is_refused(name: str) -> None:
    with pytest.raises(InvalidRequest, match="hidden:K"):
        build_verifier_input(name)


def test_clip_needs_a_tower(tmp_path: Path) -> None:
    with pytest.raises(InvalidRequest, match="vision_tower"):
        build_verifier_input("clip")
    with pytest.raises(CheckpointError, match="is no folder, nor a hub id"):
        build_verifier_input("clip", InputWeights(tmp_path / "nowhere"))
