"""Any diffusers pipeline as a baseline: the images of its own call, and nothing before them."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import AutoencoderDC, FlowMatchEulerDiscreteScheduler, SanaPipeline, SanaTransformer2DModel
from transformers import Gemma2Config, Gemma2Model

from forejudge.errors import BrokenImage, CheckpointError, InvalidRequest
from forejudge.generators import load_baseline
from forejudge.generators.base import SamplingParams
from forejudge.generators.diffusers_pipeline import BlackBox
from forejudge.types import IMAGE, latent_stage
from research.miniature.autoencoder import new_autoencoder
from research.miniature.language_model import gemma_tokenizer

CPU = torch.device("cpu")
TWO_STEPS = SamplingParams(steps=2)


@pytest.fixture(scope="module")
def sana(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An untrained SANA (not Sprint): several steps, no verifier reads it."""
    folder = tmp_path_factory.mktemp("sana")
    torch.manual_seed(0)
    tokenizer = gemma_tokenizer()
    sizes = {"hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 1}
    text = Gemma2Model(Gemma2Config(vocab_size=len(tokenizer), num_key_value_heads=1, head_dim=32, **sizes))
    transformer = SanaTransformer2DModel(
        in_channels=16, out_channels=16, num_attention_heads=2, attention_head_dim=16, num_layers=1,
        num_cross_attention_heads=2, cross_attention_head_dim=16, cross_attention_dim=32, caption_channels=32,
        sample_size=16,
    )  # fmt: skip
    autoencoder: AutoencoderDC = new_autoencoder()
    SanaPipeline(tokenizer, text, autoencoder, transformer, FlowMatchEulerDiscreteScheduler()).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def black_box(sana: Path) -> BlackBox:
    return BlackBox.from_pretrained(str(sana), CPU, torch.float32)


def test_it_generates_what_the_pipeline_generates(black_box: BlackBox) -> None:
    black_box.pipeline.set_progress_bar_config(disable=True)
    candidates = black_box.start(black_box.encode("a star", TWO_STEPS), (3, 4))
    images = black_box.advance(candidates, [IMAGE]).images
    generators = [torch.Generator().manual_seed(seed) for seed in (3, 4)]
    (first, second) = black_box.pipeline(
        "a star", num_inference_steps=2, num_images_per_prompt=2, generator=generators
    ).images
    assert np.array_equal(np.asarray(images[0]), np.asarray(first))
    assert np.array_equal(np.asarray(images[1]), np.asarray(second))


def test_an_image_that_is_not_finite_is_named(black_box: BlackBox) -> None:
    def spoil_the_second(module: torch.nn.Module, args: tuple, output: torch.Tensor) -> torch.Tensor:
        output[1, 0, 0, 0] = torch.nan
        return output

    candidates = black_box.start(black_box.encode("a star", TWO_STEPS), (3, 4))
    handle = black_box.pipeline.vae.decoder.register_forward_hook(spoil_the_second)
    candidates = black_box.advance(candidates, [IMAGE])
    handle.remove()
    assert candidates.finite_rows == [0]
    with pytest.raises(BrokenImage, match="the image of seed 4 has values that are not finite"):
        _ = candidates.images


def test_no_verifier_reads_it_before_the_image(black_box: BlackBox) -> None:
    with pytest.raises(InvalidRequest, match="is a black box"):
        black_box.advance(black_box.start(black_box.encode("a star", TWO_STEPS), (3,)), [latent_stage(), IMAGE])


def test_a_supported_pipeline_as_baseline_is_no_black_box(sana: Path, tiny_generator: Path) -> None:
    """Its own call would refuse other numbers of steps, and sizes that a name or options set."""
    known = load_baseline(f"{tiny_generator},max_timesteps=1.5", CPU, torch.float32)
    known.check("a star", SamplingParams(steps=4))
    assert not isinstance(known, BlackBox)
    assert isinstance(load_baseline(str(sana), CPU, torch.float32), BlackBox)
    with pytest.raises(InvalidRequest, match=r"takes no options, got max_timesteps: leave them out"):
        load_baseline(f"{sana},max_timesteps=1.5", CPU, torch.float32)
    with pytest.raises(InvalidRequest, match="unknown generator 'nowhere'"):
        load_baseline("nowhere", CPU, torch.float32)


def test_a_baseline_of_the_hub_may_name_a_revision(monkeypatch: pytest.MonkeyPatch, black_box: BlackBox) -> None:
    asked: dict[str, Any] = {}

    def from_pretrained(model: str, **options: Any) -> Any:
        asked.update(options, model=model)
        return black_box.pipeline

    monkeypatch.setattr("diffusers.DiffusionPipeline.from_pretrained", from_pretrained)
    assert BlackBox.from_pretrained("owner/model@v1", CPU, torch.float32).name == "owner/model@v1"
    assert (asked["model"], asked["revision"]) == ("owner/model", "v1")


def test_a_call_that_the_pipeline_refuses_is_one_line(sana: Path) -> None:
    black_box = BlackBox.from_pretrained(str(sana), CPU, torch.float32)
    black_box.pipeline.scheduler.set_timesteps = None
    candidates = black_box.start(black_box.encode("a star", TWO_STEPS), (3,))
    with pytest.raises(InvalidRequest, match=r"refuses to generate in 2 steps \(.*\): choose other steps"):
        black_box.advance(candidates, [IMAGE])


def test_bad_input_is_refused(black_box: BlackBox, tmp_path: Path) -> None:
    with pytest.raises(InvalidRequest, match="the prompt is empty"):
        black_box.encode(" ", TWO_STEPS)
    with pytest.raises(CheckpointError, match="cannot be loaded"):
        BlackBox.from_pretrained(str(tmp_path), CPU, torch.float32)


def test_weights_that_are_there_as_a_variant_only_are_loaded(sana: Path, black_box: BlackBox, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(sana, tmp_path / "pipeline"))
    for path in [*folder.glob("vae/*.safetensors"), *folder.glob("text_encoder/*.safetensors")]:
        path.rename(path.with_suffix(".fp16.safetensors"))
    assert BlackBox.from_pretrained(str(folder), CPU, torch.float32).fingerprint == black_box.fingerprint
