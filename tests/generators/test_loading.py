"""Generators by name: what is known, what is refused and in which words."""

import json
import re
from pathlib import Path

import pytest
import torch
from tests.doubles import CPU
from tests.folders import copied

from forejudge.errors import CheckpointError, InvalidRequest
from forejudge.generators import ARCHITECTURES, KNOWN_MODELS, as_generator, load_generator
from forejudge.generators.sana_sprint import SanaSprint


def load(folder: Path | str) -> None:
    load_generator(str(folder), CPU, torch.float32)


@pytest.fixture
def folder(tiny_generator: Path, tmp_path: Path) -> Path:
    """A copy to be damaged."""
    return copied(tiny_generator, tmp_path / "generator")


def test_a_folder_is_loaded_by_the_class_of_its_pipeline(tiny_generator: Path) -> None:
    generator = load_generator(str(tiny_generator), CPU, torch.bfloat16)
    assert isinstance(generator, SanaSprint)
    assert generator.name == str(tiny_generator)
    assert (generator.device, generator.dtype) == (CPU, torch.bfloat16)
    assert generator.autoencoder.dtype == generator.pipeline.text_encoder.dtype == torch.bfloat16


def test_loading_says_nothing(tiny_generator: Path, capfd: pytest.CaptureFixture[str]) -> None:
    load(tiny_generator)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("name", ["minature", "no such thing", "a/b/c"])
def test_an_unknown_name_is_refused_with_the_known_ones(name: str) -> None:
    with pytest.raises(InvalidRequest, match=f"unknown generator '{name}'.*{', '.join(KNOWN_MODELS)}"):
        load(name)


def test_a_hub_id_that_cannot_be_had_is_refused() -> None:
    with pytest.raises(CheckpointError, match="nobody/nothing cannot be loaded") as caught:
        load("nobody/nothing")
    assert "\n" not in str(caught.value)


def test_an_unsupported_pipeline_is_refused(folder: Path) -> None:
    (folder / "model_index.json").write_text(json.dumps({"_class_name": "StableDiffusionPipeline"}))
    with pytest.raises(
        InvalidRequest, match=f"holds a StableDiffusionPipeline; supported are {', '.join(ARCHITECTURES)}"
    ):
        load(folder)
    with pytest.raises(InvalidRequest, match=f"object is not supported; supported are {', '.join(ARCHITECTURES)}"):
        as_generator(object())


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"_class_name": 3, "vae": 4}'])
def test_a_model_index_that_says_nothing_is_refused(folder: Path, text: str) -> None:
    (folder / "model_index.json").write_text(text)
    with pytest.raises((CheckpointError, InvalidRequest), match=re.escape(str(folder))):
        load(folder)


@pytest.mark.parametrize(
    "missing",
    [
        "model_index.json",
        "transformer",
        "transformer/config.json",
        "transformer/diffusion_pytorch_model.safetensors",
        "vae/diffusion_pytorch_model.safetensors",
        "text_encoder/model.safetensors",
        "tokenizer",
        "tokenizer/tokenizer.json",
        "scheduler/scheduler_config.json",
    ],
)
def test_a_folder_with_a_missing_part_is_refused(folder: Path, missing: str) -> None:
    (folder / missing).rename(folder.parent / "moved away")
    assert_named(folder)


@pytest.mark.parametrize(
    "truncated",
    [
        "model_index.json",
        "transformer/config.json",
        "transformer/diffusion_pytorch_model.safetensors",
        "vae/diffusion_pytorch_model.safetensors",
        "text_encoder/model.safetensors",
        "tokenizer/tokenizer.json",
        "scheduler/scheduler_config.json",
        "forejudge.json",
    ],
)
def test_a_folder_with_a_truncated_file_is_refused(folder: Path, truncated: str) -> None:
    content = (folder / truncated).read_bytes()
    (folder / truncated).write_bytes(content[: len(content) // 2])
    assert_named(folder)


def assert_named(folder: Path) -> None:
    """Refused in one line that names the folder."""
    with pytest.raises(CheckpointError, match=re.escape(str(folder))) as caught:
        load(folder)
    assert "\n" not in str(caught.value)
