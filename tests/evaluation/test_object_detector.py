from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from tests.evaluation.tiny_detector import tiny_mask2former

from forejudge.checkpoint import weights_digest
from forejudge.errors import CheckpointError
from forejudge.evaluation import mmdet_processing
from forejudge.evaluation.mask2former import ORIGIN_FILE, Origin
from forejudge.evaluation.object_detector import ObjectDetector

CPU = torch.device("cpu")
PICTURE = Image.fromarray(np.random.default_rng(0).integers(0, 256, (48, 64, 3), np.uint8))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("detectors") / "tiny"
    tiny_mask2former().save_pretrained(folder)
    return folder


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Show pictures at a size at which the tiny detector takes no time."""
    monkeypatch.setattr(mmdet_processing, "LONGEST", 160)
    monkeypatch.setattr(mmdet_processing, "SHORTEST", 96)


def test_objects_lie_in_the_picture_and_come_again(folder: Path) -> None:
    detector = ObjectDetector.from_pretrained(str(folder), CPU)
    found = detector(PICTURE)
    assert found
    for each in found:
        x0, y0, x1, y1 = each.box
        assert 0 <= x0 < x1 <= 64
        assert 0 <= y0 < y1 <= 48
        assert 0 <= each.confidence <= 1
        assert each.mask is not None
        assert each.mask.shape == (48, 64)
        assert each.color is None
    assert detector(PICTURE) == found


def test_weights_are_told_apart_by_name(folder: Path, tmp_path: Path) -> None:
    tiny_mask2former(seed=1).save_pretrained(tmp_path / "tiny")
    names = {ObjectDetector.from_pretrained(str(each), CPU).name for each in (folder, tmp_path / "tiny")}
    assert len(names) == 2
    assert all(name.startswith("tiny ") and len(name) == len("tiny ") + 16 for name in names)


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


def test_a_detector_that_gives_no_numbers_has_not_seen_nothing(tmp_path: Path) -> None:
    damaged = tiny_mask2former()
    damaged.class_predictor.bias.data[3] = torch.nan
    damaged.save_pretrained(tmp_path / "damaged")
    with pytest.raises(CheckpointError, match=r"detector damaged \w{16} gave no numbers"):
        ObjectDetector.from_pretrained(str(tmp_path / "damaged"), CPU)(PICTURE)


def test_a_folder_without_a_detector_is_named(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=str(tmp_path)):
        ObjectDetector.from_pretrained(str(tmp_path), CPU)
    with pytest.raises(CheckpointError, match="nowhere is no folder, nor a hub id"):
        ObjectDetector.from_pretrained("nowhere", CPU)
