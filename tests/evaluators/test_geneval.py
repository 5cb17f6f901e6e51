import json
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from PIL import Image

from forejudge.errors import InvalidRequest
from forejudge.evaluators.detector import ObjectDetector
from forejudge.evaluators.geneval import ColorModel, GenEvalEvaluator
from forejudge.evaluators.geneval_rules import Detection
from forejudge.prompts.geneval import Color
from forejudge.prompts.prompt_file import PromptLine

MASK = np.ones((8, 8), bool)
IMAGE_PLACEHOLDER = Image.new("RGB", (8, 8))


class SeesAlwaysTheSame(ObjectDetector):
    def __init__(self, *seen: Detection, is_genevals: bool = True) -> None:
        self.name, self.is_genevals, self.seen = "eyes 0123", is_genevals, list(seen)

    def __call__(self, image: Image.Image, min_confidence: float = 0.0) -> list[Detection]:
        return [each for each in self.seen if each.confidence > min_confidence]


class SaysRed(ColorModel):
    def __init__(self) -> None:
        self.name, self.asked = "red 4567", list[Detection]()

    def __call__(self, image: Image.Image, found: Sequence[Detection]) -> list[Color]:
        self.asked += found
        return ["red"] * len(found)


def seen(name: str, confidence: float) -> Detection:
    return Detection(name, (0, 0, 8, 8), confidence, mask=MASK)


def line(*include: dict[str, Any], tag: str = "colors") -> PromptLine:
    metadata = {"tag": tag, "include": include, "prompt": "a photo"}
    return PromptLine("a photo", json.dumps(metadata), "line 1")


RED_COW = {"class": "cow", "count": 1, "color": "red"}
ONE_DOG = {"class": "dog", "count": 1}


def test_colors_are_read_of_the_objects_that_are_asked_for_alone() -> None:
    cows, dog = [seen("cow", 0.5), seen("cow", 0.8), seen("cow", 0.2)], seen("dog", 0.9)
    colors = SaysRed()
    (judged,) = GenEvalEvaluator(SeesAlwaysTheSame(*cows, dog), colors)([line(RED_COW, ONE_DOG)], [IMAGE_PLACEHOLDER])
    assert judged.correct
    assert colors.asked == [cows[1]]
    assert {(each.class_name, each.confidence, each.color) for each in judged.detections} == {
        ("cow", 0.5, None),
        ("cow", 0.8, "red"),
        ("dog", 0.9, None),
    }
    assert all(each.mask is None for each in judged.detections)


def test_the_wrong_color_is_the_reason() -> None:
    evaluator = GenEvalEvaluator(SeesAlwaysTheSame(seen("cow", 0.5)), SaysRed())
    (judged,) = evaluator([line({**RED_COW, "color": "blue"})], [IMAGE_PLACEHOLDER])
    assert not judged.correct
    assert judged.reason == "expected blue cow>=1, found 0 blue; and 1 red"


def test_where_too_few_are_seen_no_color_is_read() -> None:
    colors = SaysRed()
    evaluator = GenEvalEvaluator(SeesAlwaysTheSame(seen("cow", 0.5)), colors)
    (judged,) = evaluator([line({**RED_COW, "count": 2})], [IMAGE_PLACEHOLDER])
    assert judged.reason == "expected cow>=2, found 1"
    assert colors.asked == []


def test_counting_takes_the_higher_threshold() -> None:
    evaluator = GenEvalEvaluator(SeesAlwaysTheSame(seen("dog", 0.8)), SaysRed())
    counted, single = evaluator(
        [line(ONE_DOG, tag="counting"), line(ONE_DOG, tag="single_object")], [IMAGE_PLACEHOLDER] * 2
    )
    assert (counted.correct, single.correct) == (False, True)


def test_the_name_says_whose_figures_they_are() -> None:
    assert GenEvalEvaluator(SeesAlwaysTheSame(), SaysRed()).name == "geneval (detector eyes 0123, colors by red 4567)"
    other = GenEvalEvaluator(SeesAlwaysTheSame(is_genevals=False), SaysRed())
    assert other.name.endswith("), not comparable with GenEval's figures")


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (PromptLine("a dog", '{"prompt": "a dog"}', "line 7"), "line 7: not a GenEval metadata line"),
        (line({"class": "star", "count": 1}), "line 1: the detector knows no 'star'"),
    ],
)
def test_lines_that_it_cannot_judge_by_are_refused(wrong: PromptLine, said: str) -> None:
    with pytest.raises(InvalidRequest, match=said):
        GenEvalEvaluator(SeesAlwaysTheSame(), SaysRed()).check([line(ONE_DOG), wrong])
