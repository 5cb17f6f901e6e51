"""The miniature's tiny decoder: it learns the full decoder's images from training candidates alone."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import AutoencoderTiny
from PIL import Image

from forejudge.evaluators.base import Evaluation, Evaluator
from forejudge.prompts.prompt_file import PromptLine
from forejudge.training.dataset import StoredRows
from forejudge.verifiers.tiny_decoder import load_tiny_decoder
from research.miniature.autoencoder import new_autoencoder
from research.miniature.tiny_decoder import (
    DecodedLatents,
    decoder_flops,
    kept_labels,
    new_tiny_decoder,
    peak_signal_to_noise,
    previews,
    tiny_decoder_loss,
    to_images,
)
from research.tests.few_steps import losses_of
from research.tests.small_build import build


def test_a_few_steps_bring_previews_nearer_to_the_images() -> None:
    torch.manual_seed(0)
    latents_NCHW, autoencoder = torch.randn(8, 16, 8, 8), new_autoencoder()
    with torch.no_grad():
        images_N3HW = autoencoder.decode(latents_NCHW).sample.clamp(-1, 1)
    decoded, model = DecodedLatents(latents_NCHW, images_N3HW), new_tiny_decoder(8, (1, 0, 0, 0))
    before = peak_signal_to_noise(previews(model, decoded), images_N3HW)
    losses = losses_of(model, tiny_decoder_loss(model, decoded, 4, seed=0), 12, 3e-3)
    assert losses[-1] < 0.8 * losses[0]
    assert peak_signal_to_noise(previews(model, decoded), images_N3HW) > before + 1


def test_the_signal_is_measured_in_decibels_of_the_whole_range() -> None:
    black = torch.full((2, 3, 4, 4), -1.0)
    assert peak_signal_to_noise(black + 2, black) == pytest.approx(0)
    assert peak_signal_to_noise(black + 0.2, black) == pytest.approx(20)


def test_pixels_become_images() -> None:
    (image,) = to_images(torch.tensor([-1.5, 0.0, 1.0]).view(1, 3, 1, 1))
    assert image.getpixel((0, 0)) == (0, 128, 255)


def test_the_shipped_sizes_cost_a_fifth_of_the_full_decoder() -> None:
    tiny, full = new_tiny_decoder(16, (3, 2, 1, 0)), new_autoencoder()
    assert decoder_flops(tiny) / decoder_flops(full) == pytest.approx(0.195, abs=0.005)


class RedIsRight(Evaluator):
    name = "red"

    def __call__(self, lines: Sequence[PromptLine], images: Sequence[Image.Image]) -> list[Evaluation]:
        return [Evaluation(image.tobytes()[0] > 127, line.prompt) for line, image in zip(lines, images, strict=True)]


def test_it_learns_from_training_rows_and_is_measured_on_held_out_ones(
    built: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[tuple[str, list[int]]] = []
    of = DecodedLatents.of

    def recorded(rows: StoredRows, numbers: Sequence[int], *models: Any) -> DecodedLatents:
        read.append((rows.store.path.name, list(numbers)))
        return of(rows, numbers, *models)

    monkeypatch.setattr(DecodedLatents, "of", recorded)
    build(built).run("tiny-decoder")
    (training, chosen), held_out = read
    assert (training, held_out) == ("labels_training", ("labels_validation", list(range(8))))
    assert len(set(chosen)) == 16
    assert max(chosen) < 24


def test_what_is_built_decodes_the_latents_of_its_generator(built: Path) -> None:
    tiny = load_tiny_decoder(built / "tiny_decoder")
    assert isinstance(tiny, AutoencoderTiny)
    assert tiny.config.latent_channels == 16
    card = (built / "tiny_decoder" / "README.md").read_text()
    assert "PSNR against the full decoder on 8 held-out candidates, dB" in card
    assert "share of their labels that stay" in card


def test_labels_are_compared_with_those_of_the_rows(built: Path) -> None:
    rows = build(built)._verifiers().data("labels").held_out
    right = torch.from_numpy(rows.correct[:4]).view(4, 1, 1, 1)
    shown = torch.where(right, 1.0, -1.0).expand(4, 3, 2, 2)
    assert kept_labels(shown, rows, range(4), RedIsRight()) == 1
    assert kept_labels(-shown, rows, range(4), RedIsRight()) == 0
