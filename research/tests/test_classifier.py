"""The miniature's classifier: a library's class that learns, and detections that GenEval's rules can judge by."""

from pathlib import Path

import pytest
import torch
from PIL import Image
from torch import Tensor
from transformers import ResNetConfig, ResNetForImageClassification

from forejudge.errors import CheckpointError, InvalidRequest
from forejudge.evaluators.geneval_rules import Detection, evaluate_image
from forejudge.evaluators.loading import GenEvalModels, load_evaluator
from forejudge.miniature import classifier
from forejudge.miniature.classifier import (
    LABELS,
    NO_COLOR,
    NO_KIND,
    QUADRANTS,
    ClassifierEvaluator,
    classify,
    new_classifier,
)
from forejudge.miniature.detector import detect
from forejudge.miniature.scenes import COLOR_NAMES, KINDS
from research.miniature.classifier import classifier_loss, held_out_accuracy, sample_examples
from research.miniature.train import generator_for_step
from research.tests.few_steps import losses_of
from tests.miniature.test_plugin import PLAIN, RED, circle
from tests.support.scenes import held_out, to_uint8

MODEL = new_classifier(4)


@pytest.fixture
def answers(monkeypatch: pytest.MonkeyPatch) -> dict[str, Tensor]:
    """Logits of kinds and of colors by quadrant that the model is made to return."""
    said: dict[str, Tensor] = {}
    monkeypatch.setattr(classifier, "quadrant_logits", lambda *_: (said["kinds"], said["colours"]))
    return said


def sure_of(number_NQ: Tensor, classes: int, log_odds: float = 12.0) -> Tensor:
    return log_odds * torch.nn.functional.one_hot(number_NQ, classes).float()


def test_true_answers_are_right_by_genevals_rules(answers: dict[str, Tensor]) -> None:
    drawn = held_out(120)
    kind_NQ = torch.full((120, QUADRANTS), NO_KIND)
    color_NQ = torch.full((120, QUADRANTS), NO_COLOR)
    for row, truth in enumerate(drawn.ground_truth()):
        for found in truth:
            x, y = (found.box[0] + found.box[2]) / 2, (found.box[1] + found.box[3]) / 2
            at = int(x > 32) + 2 * int(y > 32)
            kind_NQ[row, at] = KINDS.index(found.class_name)
            color_NQ[row, at] = COLOR_NAMES.index(found.color)
    answers |= {"kinds": sure_of(kind_NQ, NO_KIND + 1), "colours": sure_of(color_NQ, NO_COLOR + 1)}
    for description, seen in zip(drawn.descriptions, classify(MODEL, torch.zeros(120, 3, 64, 64)), strict=True):
        verdict = evaluate_image(seen, description.metadata)
        assert verdict.correct, f"{description.prompt}: {verdict.reason}"


def test_the_probability_of_a_kind_is_the_confidence(answers: dict[str, Tensor]) -> None:
    kinds_NQK = torch.zeros(1, QUADRANTS, NO_KIND + 1)
    kinds_NQK[..., NO_KIND] = 20.0
    kinds_NQK[0, 3, 4] = 21.0
    answers |= {"kinds": kinds_NQK, "colours": sure_of(torch.full((1, 4), NO_COLOR), NO_COLOR + 1)}
    ((found,),) = classify(MODEL, torch.zeros(1, 3, 64, 64))
    assert (found.class_name, found.color) == (KINDS[4], None)
    assert found.confidence == pytest.approx(1 / (1 + 2.718281828**-1), abs=1e-4)
    assert all(32 < edge < 64 for edge in found.box)


def test_a_quadrant_is_read_by_its_own_pixels_and_a_few_around() -> None:
    torch.manual_seed(0)
    model = new_classifier(4).eval()
    image_N3HW = torch.rand(1, 3, 64, 64)
    changed_N3HW = image_N3HW.clone()
    changed_N3HW[..., 36:, 36:] = 0
    for before, after in zip(
        classifier.quadrant_logits(model, image_N3HW), classifier.quadrant_logits(model, changed_N3HW), strict=True
    ):
        assert torch.equal(before[:, :3], after[:, :3])
        assert not torch.allclose(before[:, 3], after[:, 3])


def test_no_number_is_not_nothing_seen(answers: dict[str, Tensor]) -> None:
    answers |= {"kinds": torch.full((1, 4, NO_KIND + 1), torch.nan), "colours": torch.zeros(1, 4, NO_COLOR + 1)}
    with pytest.raises(CheckpointError, match="returned NaN"):
        classify(MODEL, torch.zeros(1, 3, 64, 64))


def test_what_is_built_is_a_library_folder(built: Path) -> None:
    loaded = ResNetForImageClassification.from_pretrained(built / "classifier")
    assert tuple(loaded.config.id2label.values()) == LABELS
    assert loaded.dtype == torch.float16
    assert "quadrant accuracy on degraded and ghosted scenes" in (built / "classifier" / "README.md").read_text()


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
    images = [circle("red"), circle("blue").resize((90, 90)).convert("L")]
    together = evaluator([RED, RED], images)
    assert [evaluator([RED], [image])[0].correct for image in images] == [each.correct for each in together]
    assert evaluator([], []) == []


def test_images_are_evaluated_by_what_it_sees(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = [[Detection("circle", (7.0, 7.0, 25.0, 25.0), 0.99, color)] for color in ("red", "blue")]
    monkeypatch.setattr(classifier, "classify", lambda *_: seen)
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
    with pytest.raises(CheckpointError, match="holds no classifier of the miniature: its labels differ"):
        load_evaluator(f"classifier-miniature:{tmp_path}", ON_CPU)


def test_no_folder_is_refused() -> None:
    with pytest.raises(InvalidRequest, match="classifier-miniature needs its model: classifier-miniature:FOLDER"):
        load_evaluator("classifier-miniature")
    with pytest.raises(CheckpointError, match="nonesuch is no folder"):
        load_evaluator("classifier-miniature:nonesuch", ON_CPU)


def test_the_truth_is_what_another_reader_mostly_finds() -> None:
    seen = sample_examples(200, generator_for_step(0, 0))
    agreed = 0
    for image, kinds, colors in zip(
        to_uint8(seen.images_N3HW.permute(0, 2, 3, 1).numpy()),
        seen.kind_NQ.tolist(),
        seen.color_NQ.tolist(),
        strict=True,
    ):
        found = [(NO_KIND, NO_COLOR)] * 4
        for each in detect(image):
            if each.confidence > 0.5 and each.color is not None:
                at = int(each.box[0] + each.box[2] > 64) + 2 * int(each.box[1] + each.box[3] > 64)
                found[at] = KINDS.index(each.class_name), COLOR_NAMES.index(each.color)
        agreed += sum(each == true for each, true in zip(found, zip(kinds, colors, strict=True), strict=True))
    assert agreed / 800 > 0.8  # the worst worn of them it takes for none


def test_a_quadrant_holds_an_object_with_a_colour_or_neither() -> None:
    seen = sample_examples(300, generator_for_step(1, 0))
    assert torch.equal(seen.kind_NQ == NO_KIND, seen.color_NQ == NO_COLOR)
    assert 0.4 < float((seen.kind_NQ != NO_KIND).float().mean()) < 0.65
    assert 0 <= float(seen.images_N3HW.min()) < float(seen.images_N3HW.max()) <= 1


def test_equal_steps_give_equal_examples() -> None:
    one, same, other = (sample_examples(4, generator_for_step(0, step)).images_N3HW for step in (3, 3, 4))
    assert torch.equal(one, same)
    assert not torch.equal(one, other)


def test_a_few_steps_read_more() -> None:
    torch.manual_seed(0)
    model = new_classifier(8)
    loss_at_step = classifier_loss(model, batch_size=24, seed=0)
    losses = losses_of(model, loss_at_step, 30, 1e-2)
    assert sum(losses[-5:]) < 0.7 * sum(losses[:5])
    assert held_out_accuracy(model.eval(), 60, seed=1) > 0.3
