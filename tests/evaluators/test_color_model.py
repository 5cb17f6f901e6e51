from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn.functional import normalize
from transformers import AutoTokenizer, CLIPImageProcessorPil, CLIPModel

from forejudge.errors import CheckpointError
from forejudge.evaluators.geneval import ColorModel, cut_out
from forejudge.evaluators.geneval_rules import Box, Detection
from forejudge.prompts.geneval import COLORS
from tests.support.tiny_clip import save_tiny_clip

CPU = torch.device("cpu")
IMAGE_PLACEHOLDER = Image.fromarray(np.random.default_rng(0).integers(0, 256, (60, 80, 3), np.uint8))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_clip(tmp_path_factory.mktemp("clip") / "tiny-clip")


def found(box: Box, name: str = "bench", seed: int = 0) -> Detection:
    return Detection(name, box, 0.9, mask=np.random.default_rng(seed).random((60, 80)) > 0.3)


# Boxes whose shorter edge makes the resized ones even: where they are not, open_clip and transformers cut the middle
# out half a pixel apart.
BOXES: list[Box] = [(0, 0, 28, 28), (10, 5, 38, 47), (20, 10, 80, 52), (3, 3, 59, 59)]


def test_colors_are_those_that_clip_gives_by_the_plain_formula(folder: Path) -> None:
    clip, tokenizer = CLIPModel.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    processor = CLIPImageProcessorPil(size={"shortest_edge": 28}, crop_size={"height": 28, "width": 28})
    expected = []
    for seed, box in enumerate(BOXES):
        mask = found(box, seed=seed).mask
        assert mask is not None
        pixels = np.where(mask[..., None], np.asarray(IMAGE_PLACEHOLDER), 0x99).astype(np.uint8)
        x0, y0, x1, y1 = map(int, box)
        inputs = processor([Image.fromarray(pixels[y0:y1, x0:x1])], return_tensors="pt")
        with torch.no_grad():
            seen = normalize(clip.get_image_features(**inputs).pooler_output)[0]
            scores = []
            for color in COLORS:
                texts = [
                    f"a photo of a {color} bench",
                    f"a photo of a {color}-colored bench",
                    f"a photo of a {color} object",
                ]
                each = [
                    normalize(clip.get_text_features(**tokenizer([text], return_tensors="pt")).pooler_output)[0]
                    for text in texts
                ]
                scores.append((seen @ normalize(torch.stack(each).mean(dim=0), dim=0)).item())
        expected.append(COLORS[int(np.argmax(scores))])
    assert len(set(expected)) > 1
    model = ColorModel.from_pretrained(str(folder), CPU)
    assert model(IMAGE_PLACEHOLDER, [found(box, seed=seed) for seed, box in enumerate(BOXES)]) == expected
    assert model.name.startswith("tiny-clip ")


def test_of_a_mask_only_the_inside_is_shown() -> None:
    mask = np.zeros((60, 80), bool)
    mask[10:20, 30:50] = True
    shown = np.asarray(cut_out(IMAGE_PLACEHOLDER, Detection("bench", (28.0, 8.0, 52.0, 22.0), 0.9, mask=mask)))
    assert shown.shape == (14, 24, 3)
    assert np.array_equal(shown[2:12, 2:22], np.asarray(IMAGE_PLACEHOLDER)[10:20, 30:50])
    assert (shown[:2] == 0x99).all()
    assert (shown[:, :2] == 0x99).all()


def test_without_a_mask_the_whole_box_is_shown() -> None:
    shown = cut_out(IMAGE_PLACEHOLDER, Detection("bench", (0.0, 0.0, 10.0, 20.0), 0.9))
    assert np.array_equal(np.asarray(shown), np.asarray(IMAGE_PLACEHOLDER)[:20, :10])


@pytest.mark.parametrize("box", [(0, 0, 1, 60), (0, 0, 80, 1), (5, 5, 6, 6)])
def test_thin_objects_have_a_color_too(folder: Path, box: Box) -> None:
    (color,) = ColorModel.from_pretrained(str(folder), CPU)(IMAGE_PLACEHOLDER, [found(box)])
    assert color in COLORS


def test_no_object_has_no_color(folder: Path) -> None:
    assert ColorModel.from_pretrained(str(folder), CPU)(IMAGE_PLACEHOLDER, []) == []


def test_another_activation_is_refused(tmp_path: Path) -> None:
    save_tiny_clip(tmp_path / "clip", activation="gelu")
    with pytest.raises(CheckpointError, match="has the activation gelu, expected OpenAI's quick_gelu"):
        ColorModel.from_pretrained(str(tmp_path / "clip"), CPU)


def test_a_model_that_gives_no_numbers_tells_no_color(folder: Path, tmp_path: Path) -> None:
    damaged = CLIPModel.from_pretrained(folder)
    damaged.visual_projection.weight.data[0, 0] = torch.nan
    damaged.save_pretrained(tmp_path)
    AutoTokenizer.from_pretrained(folder).save_pretrained(tmp_path)
    with pytest.raises(CheckpointError, match="returned NaN for an image"):
        ColorModel.from_pretrained(str(tmp_path), CPU)(IMAGE_PLACEHOLDER, [found((0, 0, 28, 28))])
