import math
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from forejudge.checkpoint import weights_digest
from forejudge.errors import CheckpointError
from forejudge.evaluators import detector
from forejudge.evaluators.detector import (
    CLASS_NAMES,
    ORIGIN_FILE,
    DetectorInput,
    ObjectDetector,
    Origin,
    check_classes,
    postprocess,
    preprocess,
    read_origin,
    resized_size,
)
from tests.support.tiny_detector import tiny_mask2former


def test_answers_have_the_shapes_that_they_say() -> None:
    with torch.no_grad():
        classes_BNK, masks_BNHW = tiny_mask2former()(torch.zeros(2, 3, 64, 96))
    assert classes_BNK.shape == (2, 6, 81)
    assert masks_BNHW.shape == (2, 6, 16, 24)


@pytest.mark.parametrize(
    ("sha256", "is_genevals"), [("743b7d99" + "0" * 56, True), ("c9d0c4f2" + "0" * 56, True), ("0" * 64, False)]
)
def test_genevals_files_are_known_by_their_hash(sha256: str, is_genevals: bool) -> None:
    assert Origin(file="any.pth", sha256=sha256, weights="0" * 16).is_genevals is is_genevals


def test_an_origin_is_read_strictly(tmp_path: Path) -> None:
    assert read_origin(tmp_path) is None
    (tmp_path / ORIGIN_FILE).write_text('{"file": "weights.pth"}')
    with pytest.raises(CheckpointError, match=r"origin\.json: sha256: Field required"):
        read_origin(tmp_path)


def test_classes_must_be_cocos() -> None:
    check_classes(80, Path("detector"))
    with pytest.raises(CheckpointError, match="detector knows 133 classes, expected COCO's 80"):
        check_classes(133, Path("detector"))


def noise(width: int, height: int) -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8))


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        ((1024, 1024), (800, 800)),
        ((512, 512), (800, 800)),
        ((480, 640), (800, 1067)),  # 1066.67 is rounded
        ((500, 1000), (667, 1333)),  # the longer edge decides
        ((1000, 300), (1333, 400)),
        ((800, 800), (800, 800)),
    ],
)
def test_an_image_is_shown_as_large_as_fits(size: tuple[int, int], expected: tuple[int, int]) -> None:
    assert resized_size(*size) == expected


def test_a_square_is_shown_without_padding() -> None:
    image = noise(512, 512)
    seen = preprocess(image)
    assert (seen.size, tuple(seen.pixels_CHW.shape)) == ((800, 800), (3, 800, 800))
    # mmcv's own calls: resize, then subtract and multiply in place
    expected = cv2.resize(np.asarray(image), (800, 800), interpolation=cv2.INTER_LINEAR).astype(np.float32)
    cv2.subtract(expected, np.array([[123.675, 116.28, 103.53]]), expected)
    cv2.multiply(expected, 1 / np.array([[58.395, 57.12, 57.375]]), expected)
    torch.testing.assert_close(seen.pixels_CHW, torch.from_numpy(expected).permute(2, 0, 1), rtol=0, atol=1e-6)


def test_other_shapes_are_padded_with_grey_below_and_on_the_right() -> None:
    seen = preprocess(noise(640, 480))
    assert (seen.size, tuple(seen.pixels_CHW.shape)) == ((800, 1067), (3, 800, 1088))
    padding = seen.pixels_CHW[:, :, 1067:]
    expected = torch.tensor([(128 - 123.675) / 58.395, (128 - 116.28) / 57.12, (128 - 103.53) / 57.375])
    torch.testing.assert_close(padding, expected[:, None, None].expand_as(padding))


def test_gray_and_transparent_images_are_shown_in_color() -> None:
    assert preprocess(Image.new("L", (64, 64))).pixels_CHW.shape[0] == 3
    assert preprocess(Image.new("RGBA", (64, 64))).pixels_CHW.shape[0] == 3


# Against a plain reading of the formula, one object and one pixel at a time

QUERIES, SEEN, SIZE = 5, DetectorInput(torch.zeros(3, 32, 64), (30, 50)), (12, 20)


@pytest.fixture
def answer() -> tuple[Tensor, Tensor]:
    torch.manual_seed(0)
    return torch.randn(QUERIES, 81) * 4, torch.randn(QUERIES, 8, 16) * 4


def resized(image: Tensor, height: int, width: int) -> Tensor:
    """Bilinear, pixel centers at halves, edges repeated."""
    out = torch.zeros(height, width)
    for y in range(height):
        for x in range(width):
            at_y = max((y + 0.5) * image.shape[0] / height - 0.5, 0)
            at_x = max((x + 0.5) * image.shape[1] / width - 0.5, 0)
            top, left = int(at_y), int(at_x)
            bottom, right = min(top + 1, image.shape[0] - 1), min(left + 1, image.shape[1] - 1)
            down, across = at_y - top, at_x - left
            above = image[top, left] * (1 - across) + image[top, right] * across
            below = image[bottom, left] * (1 - across) + image[bottom, right] * across
            out[y, x] = above * (1 - down) + below * down
    return out


def test_objects_are_those_of_the_formula(answer: tuple[Tensor, Tensor]) -> None:
    classes_NK, masks_NHW = answer
    found = postprocess(classes_NK, masks_NHW, SEEN, SIZE, min_confidence=0.05)
    masks = [resized(resized(mask, 32, 64)[:30, :50], *SIZE) for mask in masks_NHW]
    expected = []
    for query in range(QUERIES):
        exponentials = [math.exp(value) for value in classes_NK[query].tolist()]
        for place in range(80):
            probability = exponentials[place] / sum(exponentials)
            if probability > 0.05:
                inside = masks[query] > 0
                mean = torch.sigmoid(masks[query])[inside].mean().item()
                rows, columns = torch.nonzero(inside, as_tuple=True)
                box = (columns.min().item(), rows.min().item(), columns.max().item() + 1, rows.max().item() + 1)
                expected.append((probability, CLASS_NAMES[place], box, probability * mean, inside.numpy()))
    expected.sort(key=lambda each: -each[0])
    assert len(expected) > QUERIES
    assert len(found) == len(expected)
    for detection, (_, name, box, confidence, mask) in zip(found, expected, strict=True):
        assert (detection.class_name, detection.box) == (name, box)
        assert detection.confidence == pytest.approx(confidence, abs=1e-5)
        assert detection.mask is not None
        assert np.array_equal(detection.mask, mask)


def test_at_most_a_hundred_are_found(answer: tuple[Tensor, Tensor]) -> None:
    found = postprocess(*answer, SEEN, SIZE, min_confidence=0)
    assert len(found) == 100
    for detection in found:
        assert detection.mask is not None
        assert detection.mask.shape == SIZE


def test_none_is_found_where_none_is_likely(answer: tuple[Tensor, Tensor]) -> None:
    assert postprocess(*answer, SEEN, SIZE, min_confidence=1) == []


def test_leaving_out_what_is_unlikely_changes_nothing_above(answer: tuple[Tensor, Tensor]) -> None:
    above = [each for each in postprocess(*answer, SEEN, SIZE, min_confidence=0) if each.confidence > 0.2]
    assert above
    assert [each for each in postprocess(*answer, SEEN, SIZE, min_confidence=0.2) if each.confidence > 0.2] == above


def test_an_empty_mask_is_no_object(answer: tuple[Tensor, Tensor]) -> None:
    classes_NK, masks_NHW = answer
    assert postprocess(classes_NK, -masks_NHW.abs(), SEEN, SIZE, min_confidence=0) == []


CPU = torch.device("cpu")
IMAGE_PLACEHOLDER = Image.fromarray(np.random.default_rng(0).integers(0, 256, (48, 64, 3), np.uint8))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("detectors") / "tiny"
    tiny_mask2former().save_pretrained(folder)
    return folder


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Resize images to a size at which the tiny detector takes no time."""
    monkeypatch.setattr(detector, "LONGEST", 160)
    monkeypatch.setattr(detector, "SHORTEST", 96)


@pytest.mark.usefixtures("small")
def test_objects_lie_in_the_image_and_come_again(folder: Path) -> None:
    detector = ObjectDetector.from_pretrained(str(folder), CPU)
    found = detector(IMAGE_PLACEHOLDER)
    assert found
    for each in found:
        x0, y0, x1, y1 = each.box
        assert 0 <= x0 < x1 <= 64
        assert 0 <= y0 < y1 <= 48
        assert 0 <= each.confidence <= 1
        assert each.mask is not None
        assert each.mask.shape == (48, 64)
        assert each.color is None
    assert detector(IMAGE_PLACEHOLDER) == found


@pytest.mark.usefixtures("small")
def test_weights_are_told_apart_by_name(folder: Path, tmp_path: Path) -> None:
    tiny_mask2former(seed=1).save_pretrained(tmp_path / "tiny")
    names = {ObjectDetector.from_pretrained(str(each), CPU).name for each in (folder, tmp_path / "tiny")}
    assert len(names) == 2
    assert all(name.startswith("tiny ") and len(name) == len("tiny ") + 16 for name in names)


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize(
    ("sha256", "weights", "is_genevals"),
    [("743b7d99" + "0" * 56, None, True), ("743b7d99" + "0" * 56, "0" * 16, False), ("1" * 64, None, False)],
)
def test_a_detector_is_genevals_by_its_origin_and_its_weights(
    folder: Path, sha256: str, weights: str | None, is_genevals: bool
) -> None:
    assert not ObjectDetector.from_pretrained(str(folder), CPU).is_genevals
    origin = Origin(file="weights.pth", sha256=sha256, weights=weights or weights_digest(folder))
    (folder / ORIGIN_FILE).write_text(origin.model_dump_json())
    try:
        detector = ObjectDetector.from_pretrained(str(folder), CPU)
    finally:
        (folder / ORIGIN_FILE).unlink()
    assert detector.is_genevals is is_genevals
    assert detector.name.startswith("weights.pth ")


@pytest.mark.usefixtures("small")
def test_nan_is_not_an_empty_image(tmp_path: Path) -> None:
    damaged = tiny_mask2former()
    damaged.class_predictor.bias.data[3] = torch.nan
    damaged.save_pretrained(tmp_path / "damaged")
    with pytest.raises(CheckpointError, match=r"detector damaged \w{16} returned NaN"):
        ObjectDetector.from_pretrained(str(tmp_path / "damaged"), CPU)(IMAGE_PLACEHOLDER)


@pytest.mark.usefixtures("small")
def test_a_folder_without_a_detector_is_named(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=str(tmp_path)):
        ObjectDetector.from_pretrained(str(tmp_path), CPU)
    with pytest.raises(CheckpointError, match="nowhere is no folder, nor a hub id"):
        ObjectDetector.from_pretrained("nowhere", CPU)
