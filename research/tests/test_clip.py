"""The miniature's CLIP: real classes, whose towers the baselines can read with, and that it learns."""

from pathlib import Path

import torch
from PIL import Image
from transformers import CLIPModel, CLIPTokenizer

from forejudge.types import IMAGE, Candidates
from forejudge.verifiers.inputs import ImageFeaturesInput
from research.miniature.clip import caption_tokenizer, clip_loss, held_out_retrieval, new_clip
from research.tests.few_steps import losses_of


def test_every_word_of_a_caption_is_one_token() -> None:
    tokenizer = caption_tokenizer()
    said = "two faint red stars at the upper left and a blue ring"
    assert tokenizer.decode(tokenizer(said).input_ids) == f"<|startoftext|>{said} <|endoftext|>"
    assert len(tokenizer(said).input_ids) == len(said.split()) + 2


def test_a_few_steps_find_more_captions() -> None:
    torch.manual_seed(0)
    tokenizer = caption_tokenizer()
    model = new_clip(tokenizer, 32, 2)
    assert held_out_retrieval(model, tokenizer, 60, seed=1) < 0.1
    loss_at_step = clip_loss(model, tokenizer, batch_size=32, seed=0)
    losses = losses_of(model, loss_at_step, 40, 3e-3)
    assert sum(losses[-5:]) < 0.9 * sum(losses[:5])


def test_what_is_built_is_a_library_folder_whose_tower_reads_images(built: Path) -> None:
    folder = built / "clip"
    assert isinstance(CLIPTokenizer.from_pretrained(folder), CLIPTokenizer)
    whole = CLIPModel.from_pretrained(folder).float().eval()
    verifier_input = ImageFeaturesInput.from_pretrained(folder)
    image = torch.randint(256, (64, 64, 3), dtype=torch.uint8)
    candidates = Candidates((0,), IMAGE, {IMAGE: (Image.fromarray(image.numpy()),)}, None)
    pixels_N3HW = image.permute(2, 0, 1)[None] / 127.5 - 1
    shown = whole.vision_model(pixels_N3HW, output_hidden_states=True)
    torch.testing.assert_close(verifier_input.tokens(candidates), shown.hidden_states[-2][:, 1:], atol=1e-4, rtol=1e-4)


def test_its_card_says_how_well_it_finds_captions(built: Path) -> None:
    assert "own caption found among 200 held-out ones" in (built / "clip" / "README.md").read_text()
