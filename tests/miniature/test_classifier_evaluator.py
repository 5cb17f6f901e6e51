"""The classifier as an evaluator, loaded by its spelling."""

from pathlib import Path

import pytest
from PIL import Image
from tests.miniature.test_evaluator import PLAIN, RED, circle
from transformers import ResNetConfig, ResNetForImageClassification

from forejudge.errors import CheckpointError, InvalidRequest
from forejudge.evaluation.detection import Detection
from forejudge.evaluation.evaluators import GenEvalModels, load_evaluator
from forejudge.miniature import classifier_evaluator
from forejudge.miniature.classifier import new_classifier
from forejudge.miniature.classifier_evaluator import ClassifierEvaluator

ON_CPU = GenEvalModels(device="cpu")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("untrained") / "reader"
    new_classifier(4).half().save_pretrained(folder)
    return folder


def test_it_is_loaded_by_its_spelling_and_named_by_its_weights(folder: Path) -> None:
    evaluator = load_evaluator(f"classifier-miniature:{folder}", ON_CPU)
    assert isinstance(evaluator, ClassifierEvaluator)
    assert evaluator.name.startswith("classifier-miniature (reader ")
    pictures = [circle("red"), circle("blue").resize((90, 90)).convert("L")]
    together = evaluator([RED, RED], pictures)
    assert [evaluator([RED], [picture])[0].correct for picture in pictures] == [each.correct for each in together]
    assert evaluator([], []) == []


def test_pictures_are_judged_by_what_it_sees(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = [[Detection("circle", (7.0, 7.0, 25.0, 25.0), 0.99, color)] for color in ("red", "blue")]
    monkeypatch.setattr(classifier_evaluator, "classify", lambda *_: seen)
    right, wrong = load_evaluator(f"classifier-miniature:{folder}", ON_CPU)(
        [RED, RED], [Image.new("RGB", (64, 64))] * 2
    )
    assert (right.correct, right.detections) == (True, tuple(seen[0]))
    assert not wrong.correct
    assert "expected red circle>=1, found 0 red" in wrong.reason


def test_a_line_without_metadata_is_named_beforehand(folder: Path) -> None:
    with pytest.raises(InvalidRequest, match=r"prompts\.txt, line 2"):
        load_evaluator(f"classifier-miniature:{folder}", ON_CPU).check([RED, PLAIN])


def test_another_model_is_refused(tmp_path: Path) -> None:
    sizes = {"embedding_size": 4, "hidden_sizes": [4, 8, 16], "depths": [1, 1, 1], "layer_type": "basic"}
    ResNetForImageClassification(ResNetConfig(**sizes, num_labels=24)).save_pretrained(tmp_path)
    with pytest.raises(CheckpointError, match="holds no classifier of the miniature: its labels are others"):
        load_evaluator(f"classifier-miniature:{tmp_path}", ON_CPU)


def test_no_folder_is_refused() -> None:
    with pytest.raises(InvalidRequest, match="classifier-miniature needs its model: classifier-miniature:FOLDER"):
        load_evaluator("classifier-miniature")
    with pytest.raises(CheckpointError, match="nonesuch is no folder"):
        load_evaluator("classifier-miniature:nonesuch", ON_CPU)
