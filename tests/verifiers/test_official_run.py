"""The official best-of-N, from noise to image, candidate for candidate."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from forejudge.generators import load_generator
from forejudge.generators.base import Generator, SamplingParams
from forejudge.generators.sana_sprint import SanaSprint
from forejudge.hub import Source
from forejudge.types import IMAGE, latent_stage, prefix_stage
from forejudge.verifiers.published_import import PublishedSource, import_published, official_scores
from tests.support.doubles import CPU
from tests.support.official import DTYPES, OFFICIAL

GENERATOR = str(OFFICIAL / "sana-sprint-tiny")  # whose text encoder ran without the soft cap that its config names
CANDIDATES = range(3)
EXPECTED = load_file(OFFICIAL / "expected_e2e.safetensors")
RUNS = json.loads((OFFICIAL / "expected_e2e.json").read_text())["runs"]


@pytest.mark.parametrize("mode", ["fp32", "bf16"])
def test_the_official_run_is_followed_to_the_image(mode: str) -> None:
    generator = load_generator(f"{GENERATOR},gemma_softcap=false", CPU, DTYPES[mode])
    assert isinstance(generator, SanaSprint)
    mean, variance = (OFFICIAL / f"norm/e2e/block_7_{name}_{mode}.pt" for name in ("mean", "variance"))
    source = PublishedSource(Source("vhs", OFFICIAL / "vhs-tiny-96"), (mean, variance), GENERATOR)
    verifier = import_published(source, dtype=DTYPES[mode]).verifier
    assert verifier.check(generator) == []
    for prompt in RUNS[mode]["prompts"]:
        index, tolerance = prompt["prompt_index"], 2e-6 if mode == "fp32" else 2e-2
        noise_NCHW = torch.cat([EXPECTED[f"prompt{index}.cand{row}.noise"] for row in CANDIDATES])
        conditioning = generator.encode(prompt["prompt"], SamplingParams(height=256, width=256))
        drawn = generator.start(conditioning, tuple(CANDIDATES), noise_NCHW=noise_NCHW)
        drawn = generator.advance(drawn, verifier.reads)
        scores = official_scores(verifier, prompt["prompt"], drawn)
        assert scores == pytest.approx(prompt["scores"], abs=tolerance)
        winner = int(np.argmax(scores))
        assert winner == prompt["best_index"]
        if mode == "fp32":
            for row in CANDIDATES:
                recorded = EXPECTED.get(f"fp32.prompt{index}.cand{row}.block7")
                if recorded is not None:
                    torch.testing.assert_close(drawn.tensor(prefix_stage(8))[[row]], recorded, rtol=0, atol=1e-5)
            finished = generator.advance(drawn[[winner]], [latent_stage(), IMAGE])
            scaled_NCHW = finished.tensor(latent_stage()) / generator.autoencoder.config.scaling_factor
            recorded = EXPECTED[f"fp32.prompt{index}.winner.vae_input"]
            torch.testing.assert_close(scaled_NCHW, recorded, rtol=0, atol=1e-5)
            if index == 0:
                assert_same_image(finished.images[0], OFFICIAL / "expected_e2e_winner.png")


def assert_same_image(image: Image.Image, path: Path) -> None:
    """Compare images up to rounding of a few values."""
    with Image.open(path) as recorded:
        apart = np.abs(np.asarray(image, dtype=int) - np.asarray(recorded, dtype=int))
    assert apart.max() <= 1
    assert (apart > 0).mean() < 1e-3


def test_noise_passed_in_equals_the_noise_of_the_seeds() -> None:
    generator: Generator = load_generator(f"{GENERATOR},gemma_softcap=false", CPU, torch.float32)
    assert isinstance(generator, SanaSprint)
    conditioning = generator.encode("a photo of a cow", SamplingParams(height=256, width=256))
    drawn = generator.start(conditioning, (5, 6))
    again = generator.start(conditioning, (5, 6), noise_NCHW=drawn.state.latents / generator.sigma_data)
    assert torch.equal(again.state.latents, drawn.state.latents)
