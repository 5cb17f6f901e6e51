"""Captioners by name, and a tiny untrained Gemma 3 as one: images in, its own new words out."""

from pathlib import Path

import pytest
import torch
from PIL import Image
from transformers import Gemma3Processor, Gemma3TextConfig

from forejudge.errors import CheckpointError, InvalidRequest
from forejudge.evaluators.base import Captioner, FunctionCaptioner
from forejudge.evaluators.image_text_to_text import BATCH_SIZE, INSTRUCTION
from forejudge.evaluators.loading import load_captioner
from tests.support.folders import copy_folder
from tests.support.image_text_model import CROPS, SPECIAL_TOKENS, new_processor, save_image_text_model
from tests.support.scenes import single, to_uint8

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_image_text_model(tmp_path_factory.mktemp("tiny") / "captioner", INSTRUCTION)


@pytest.fixture(scope="module")
def captioner(folder: Path) -> Captioner:
    return load_captioner(str(folder), CPU, torch.float32)


@pytest.fixture(scope="module")
def images() -> list[Image.Image]:
    """More than a batch of plain colours, two of three images wide."""
    colors = torch.randint(256, (BATCH_SIZE + 2, 3), generator=torch.Generator().manual_seed(0)).tolist()
    return [Image.new("RGB", (60 if n % 3 else 20, 20), tuple(color)) for n, color in enumerate(colors)]


@pytest.mark.slow
def test_every_image_gets_its_own_caption_whatever_the_batch(
    captioner: Captioner, images: list[Image.Image], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Gemma3Processor, "images_kwargs", CROPS)
    alone = [captioner([image])[0] for image in images]
    assert captioner(images) == alone
    assert len(set(alone)) > len(alone) / 2


def test_no_images_get_no_captions(captioner: Captioner) -> None:
    assert captioner([]) == []


def test_a_caption_holds_new_words_only(captioner: Captioner, images: list[Image.Image]) -> None:
    for caption in captioner(images):
        assert caption == caption.strip()
        assert INSTRUCTION[:8] not in caption
        assert not any(mark in caption for mark in SPECIAL_TOKENS)


def test_gray_and_transparent_images_are_read(captioner: Captioner, images: list[Image.Image]) -> None:
    assert len(captioner([images[0].convert("L"), images[0].convert("RGBA")])) == 2


@pytest.mark.parametrize(
    "name", ["config.json", "model.safetensors", "processor_config.json", "tokenizer.json", "chat_template.jinja"]
)
def test_a_folder_without_one_of_its_files_is_refused_in_one_line(folder: Path, tmp_path: Path, name: str) -> None:
    damaged = copy_folder(folder, tmp_path / "damaged")
    (damaged / name).unlink()
    with pytest.raises(CheckpointError) as refusal:
        load_captioner(str(damaged), CPU, torch.float32)
    assert str(damaged) in str(refusal.value)
    assert "\n" not in str(refusal.value)


def test_a_model_that_sees_no_images_is_refused(tmp_path: Path) -> None:
    Gemma3TextConfig().save_pretrained(tmp_path)
    new_processor(INSTRUCTION).tokenizer.save_pretrained(tmp_path)
    with pytest.raises(CheckpointError, match="no image processor with a chat template"):
        load_captioner(str(tmp_path), CPU, torch.float32)


def test_weights_take_the_precision_asked_for(folder: Path) -> None:
    captioner = load_captioner(str(folder), CPU, torch.bfloat16)
    assert captioner.model.dtype == torch.bfloat16  # type: ignore[attr-defined]
    assert len(captioner([Image.new("RGB", (20, 20), "red")])) == 1


def test_the_miniature_has_a_captioner_of_its_own() -> None:
    captioner = load_captioner("miniature", CPU, torch.float32)
    (caption,) = captioner([Image.fromarray(to_uint8(single("star", "red").images)[0])])
    assert captioner.name == "miniature"
    assert "red star" in caption


def test_an_unknown_name_is_refused_with_what_is_possible() -> None:
    with pytest.raises(InvalidRequest, match=r"a folder, a hub id .*, module:function, or one of miniature"):
        load_captioner("minature", CPU, torch.float32)


def size_in_words(image: Image.Image) -> str:
    return f"an image of {image.width} pixels"


def test_a_function_is_a_captioner() -> None:
    captioner = load_captioner(f"{__name__}:size_in_words", CPU, torch.float32)
    assert captioner([Image.new("RGB", (3, 3))]) == ["an image of 3 pixels"]
    with pytest.raises(InvalidRequest, match="captioner nothing returned None: expected a str"):
        FunctionCaptioner(lambda image: None, "nothing")([Image.new("RGB", (3, 3))])
