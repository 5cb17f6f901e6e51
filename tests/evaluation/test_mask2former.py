from pathlib import Path

import pytest
import torch
from tests.evaluation.tiny_detector import tiny_mask2former

from forejudge.errors import CheckpointError
from forejudge.evaluation.mask2former import ORIGIN_FILE, Origin, check_classes, read_origin


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
