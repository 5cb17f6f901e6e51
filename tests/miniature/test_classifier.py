"""The miniature's classifier: a library's class that learns, and detections that GenEval's rules can judge by."""

from pathlib import Path

import pytest
import torch
from tests.miniature.scenes import held_out
from torch import Tensor
from transformers import ResNetForImageClassification

from forejudge.errors import CheckpointError
from forejudge.evaluation.geneval import judge_image
from forejudge.miniature import classifier
from forejudge.miniature.classifier import LABELS, NO_COLOUR, NO_KIND, QUADRANTS, classify, new_classifier
from forejudge.miniature.scene import COLOUR_NAMES
from forejudge.miniature.shapes import KINDS

MODEL = new_classifier(4)


@pytest.fixture
def answers(monkeypatch: pytest.MonkeyPatch) -> dict[str, Tensor]:
    """What the model is made to say: logits of kinds and of colours, by quadrant."""
    said: dict[str, Tensor] = {}
    monkeypatch.setattr(classifier, "quadrant_logits", lambda *_: (said["kinds"], said["colours"]))
    return said


def sure_of(number_NQ: Tensor, classes: int, log_odds: float = 12.0) -> Tensor:
    return log_odds * torch.nn.functional.one_hot(number_NQ, classes).float()


def test_true_answers_are_right_by_genevals_rules(answers: dict[str, Tensor]) -> None:
    drawn = held_out(120)
    kind_NQ = torch.full((120, QUADRANTS), NO_KIND)
    colour_NQ = torch.full((120, QUADRANTS), NO_COLOUR)
    for row, truth in enumerate(drawn.truth()):
        for found in truth:
            x, y = (found.box[0] + found.box[2]) / 2, (found.box[1] + found.box[3]) / 2
            at = int(x > 32) + 2 * int(y > 32)
            kind_NQ[row, at] = KINDS.index(found.class_name)
            colour_NQ[row, at] = COLOUR_NAMES.index(found.color)
    answers |= {"kinds": sure_of(kind_NQ, NO_KIND + 1), "colours": sure_of(colour_NQ, NO_COLOUR + 1)}
    for description, seen in zip(drawn.descriptions, classify(MODEL, torch.zeros(120, 3, 64, 64)), strict=True):
        verdict = judge_image(seen, description.metadata)
        assert verdict.correct, f"{description.prompt}: {verdict.reason}"


def test_the_probability_of_a_kind_is_the_confidence(answers: dict[str, Tensor]) -> None:
    kinds_NQK = torch.zeros(1, QUADRANTS, NO_KIND + 1)
    kinds_NQK[..., NO_KIND] = 20.0
    kinds_NQK[0, 3, 4] = 21.0
    answers |= {"kinds": kinds_NQK, "colours": sure_of(torch.full((1, 4), NO_COLOUR), NO_COLOUR + 1)}
    ((found,),) = classify(MODEL, torch.zeros(1, 3, 64, 64))
    assert (found.class_name, found.color) == (KINDS[4], None)
    assert found.confidence == pytest.approx(1 / (1 + 2.718281828**-1), abs=1e-4)
    assert all(32 < edge < 64 for edge in found.box)


def test_a_quadrant_is_read_by_its_own_pixels_and_a_few_around() -> None:
    torch.manual_seed(0)
    model = new_classifier(4).eval()
    picture_N3HW = torch.rand(1, 3, 64, 64)
    changed_N3HW = picture_N3HW.clone()
    changed_N3HW[..., 36:, 36:] = 0
    for before, after in zip(
        classifier.quadrant_logits(model, picture_N3HW), classifier.quadrant_logits(model, changed_N3HW), strict=True
    ):
        assert torch.equal(before[:, :3], after[:, :3])
        assert not torch.allclose(before[:, 3], after[:, 3])


def test_no_number_is_not_nothing_seen(answers: dict[str, Tensor]) -> None:
    answers |= {"kinds": torch.full((1, 4, NO_KIND + 1), torch.nan), "colours": torch.zeros(1, 4, NO_COLOUR + 1)}
    with pytest.raises(CheckpointError, match="gave no numbers"):
        classify(MODEL, torch.zeros(1, 3, 64, 64))


def test_what_is_built_is_a_library_folder(built: Path) -> None:
    loaded = ResNetForImageClassification.from_pretrained(built / "classifier")
    assert tuple(loaded.config.id2label.values()) == LABELS
    assert loaded.dtype == torch.float16
    assert "quadrants of worn and ghosted scenes read right" in (built / "classifier" / "README.md").read_text()
