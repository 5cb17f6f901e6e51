import json
import re
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from forejudge.errors import InvalidRequest
from forejudge.evaluators.geneval_rules import (
    Box,
    Detection,
    Thresholds,
    box_iou,
    evaluate_image,
    keep_detections,
    relative_position,
)
from forejudge.prompts.geneval import PromptMetadata

FIXTURE = Path(__file__).parents[1] / "fixtures" / "geneval_cases.json"
OFFICIAL_CASES = Path(__file__).parents[3] / "shared/parity/geneval_cases.json"


# What the official evaluator answered


@pytest.fixture(scope="module")
def official() -> dict[str, Any]:
    if not OFFICIAL_CASES.exists():
        pytest.skip(f"the official evaluator's recorded answers are not at {OFFICIAL_CASES}")
    recorded: dict[str, Any] = json.loads(OFFICIAL_CASES.read_text())
    return recorded


def official_thresholds(options: dict[str, Any]) -> Thresholds:
    return Thresholds(
        detection=options["threshold"],
        counting=options["counting_threshold"],
        max_objects=options["max_objects"],
        max_overlap=options["max_overlap"],
        position=options["position_threshold"],
    )


def without_order(reason: str) -> list[tuple[str, frozenset[str]]]:
    """The evaluator joins relations out of a set, so that "found A and B target" has no order."""
    parted = [re.fullmatch(r"(.*, found )(.*)( target)", line) for line in reason.split("\n")]
    return [
        (match[1], frozenset(match[2].split(" and "))) if match else (line, frozenset())
        for match, line in zip(parted, reason.split("\n"), strict=True)
    ]


def test_all_recorded_cases_agree(official: dict[str, Any]):
    assert Thresholds() == official_thresholds(official["defaults"])
    assert len(official["cases"]) == 200
    for case in official["cases"]:
        verdict = evaluate_image(
            [
                Detection(found["cls"], tuple(found["box"]), found["score"], found["color"])
                for found in case["detections"]
            ],
            PromptMetadata.from_line(json.dumps(case["metadata"])),
            official_thresholds(case["options"]),
        )
        expected = case["expected"]
        assert verdict.correct == expected["correct"], case["id"]
        assert without_order(verdict.reason) == without_order(expected["reason"]), case["id"]
        kept = {
            name: [[*detection.box, detection.confidence] for detection in found]
            for name, found in verdict.kept.items()
        }
        assert kept == expected["details"], case["id"]


def test_all_recorded_relative_positions_agree(official: dict[str, Any]):
    assert len(official["relative_position"]) == 100
    for case in official["relative_position"]:
        seen = relative_position(case["a"], case["b"], case["position_threshold"])
        assert seen == set(case["expected"]), case


def test_all_recorded_overlaps_agree(official: dict[str, Any]):
    assert len(official["compute_iou"]) == 40
    for case in official["compute_iou"]:
        assert box_iou(case["a"], case["b"]) == pytest.approx(case["expected"], abs=1e-7), case


@pytest.fixture(scope="module")
def recorded() -> dict[str, Any]:
    """Some of these cases, with verdicts alone, that come with the repository."""
    found: dict[str, Any] = json.loads(FIXTURE.read_text())
    return found


def test_some_recorded_cases_agree_anywhere(recorded: dict[str, Any]):
    assert len(recorded["cases"]) == 71
    for case in recorded["cases"]:
        metadata = PromptMetadata.model_validate({**case, "prompt": "a photo"})
        detections = [
            Detection(name, tuple(box), confidence, color) for name, *box, confidence, color in case["detections"]
        ]
        verdict = evaluate_image(detections, metadata)
        assert verdict.correct == case["correct"], case
        assert {name: len(found) for name, found in verdict.kept.items()} == case["kept"], case


def test_some_recorded_boxes_agree_anywhere(recorded: dict[str, Any]):
    for *boxes, relations in recorded["relative_position"]:
        assert relative_position(tuple(boxes[:4]), tuple(boxes[4:]), 0.0) == set(relations), boxes
    for *boxes, overlap in recorded["box_iou"]:
        assert box_iou(tuple(boxes[:4]), tuple(boxes[4:])) == pytest.approx(overlap, abs=1e-6), boxes


# The rules one by one, on images made up here


def prompt_for(*include: dict[str, Any], tag: str = "two_object", **more: Any) -> PromptMetadata:
    return PromptMetadata.model_validate({"tag": tag, "include": include, "prompt": "a photo", **more})


def seen(name: str, confidence: float = 0.95, color: str | None = None, box: Box = (0, 0, 9, 9)) -> Detection:
    return Detection(name, box, confidence, color)


ONE_COW = {"class": "cow", "count": 1}
ONE_DOG = {"class": "dog", "count": 1}
TWO_COWS = prompt_for({"class": "cow", "count": 2}, tag="counting", exclude=[{"class": "cow", "count": 3}])


def test_every_class_asked_for_must_be_seen():
    metadata = prompt_for(ONE_COW, ONE_DOG)
    assert evaluate_image([seen("cow"), seen("dog"), seen("cat")], metadata).correct
    verdict = evaluate_image([seen("cat")], metadata)
    assert not verdict.correct
    assert verdict.reason == "expected cow>=1, found 0\nexpected dog>=1, found 0"


def test_more_than_asked_for_is_fine_unless_excluded():
    assert evaluate_image([seen("cow")] * 3, prompt_for(ONE_COW)).correct
    verdict = evaluate_image([seen("cow")] * 3, TWO_COWS)
    assert verdict.reason == "expected cow<3, found 3"
    assert evaluate_image([seen("cow")] * 2, TWO_COWS).correct
    assert evaluate_image([seen("cow")], TWO_COWS).reason == "expected cow>=2, found 1"


@pytest.mark.parametrize(("confidence", "counts"), [(0.3, False), (0.300001, True), (0.25, False)])
def test_confidence_must_exceed_the_threshold(confidence: float, counts: bool):
    assert evaluate_image([seen("cow", confidence)], prompt_for(ONE_COW)).correct is counts


def test_an_image_is_judged_by_the_thresholds_given():
    found, strict = [seen("cow", 0.4)], Thresholds(detection=0.5)
    assert evaluate_image(found, prompt_for(ONE_COW)).correct
    assert not evaluate_image(found, prompt_for(ONE_COW), strict).correct


def test_a_threshold_stored_as_float32_is_not_above_itself():
    stored = float(np.float32(0.3))
    assert stored > 0.3
    assert not evaluate_image([seen("cow", stored)], prompt_for(ONE_COW)).correct


def test_counting_images_need_the_higher_confidence_for_every_class():
    found = [seen("cow", 0.95), seen("cow", 0.9), seen("dog", 0.8)]
    assert keep_detections(found, TWO_COWS) == {"cow": [found[0]]}
    assert keep_detections(found, prompt_for(ONE_COW)) == {"cow": found[:2], "dog": found[2:]}


def test_an_undefined_confidence_never_counts():
    found = [seen("cow", 0.5), seen("cow", float("nan")), seen("cow", 0.7)]
    assert keep_detections(found, prompt_for(ONE_COW)) == {"cow": [found[2], found[0]]}


def test_the_most_confident_come_first_and_at_most_sixteen_stay_of_a_class():
    confidences = [0.31 + 0.01 * index for index in range(20)]
    found = [seen("cow", confidence) for confidence in confidences] + [seen("dog", 0.31)]
    kept = keep_detections(found, prompt_for(ONE_COW))
    assert [detection.confidence for detection in kept["cow"]] == confidences[:3:-1]
    assert len(kept["dog"]) == 1


def test_overlapping_detections_stay_unless_suppression_is_on():
    best = seen("cow", 0.9, box=(0, 0, 9, 9))
    close = seen("cow", 0.8, box=(0, 0, 9, 7))  # 80 of 100 pixels
    apart = seen("cow", 0.7, box=(50, 50, 59, 59))
    other = seen("dog", 0.6, box=(0, 0, 9, 9))
    found = [apart, close, best, other]
    metadata = prompt_for(ONE_COW)
    assert keep_detections(found, metadata)["cow"] == [best, close, apart]
    suppressed = keep_detections(found, metadata, Thresholds(max_overlap=0.75))
    assert suppressed == {"cow": [best, apart], "dog": [other]}
    assert keep_detections(found, metadata, Thresholds(max_overlap=0.85))["cow"][1] == close


def test_an_overlap_of_just_the_threshold_is_too_much():
    found = [seen("cow", 0.9, box=(0, 0, 9, 9)), seen("cow", 0.8, box=(0, 0, 9, 4))]
    kept = keep_detections(found, prompt_for(ONE_COW), Thresholds(max_overlap=0.5))
    assert kept == {"cow": found[:1]}


def test_a_suppressed_detection_suppresses_none():
    row = [
        seen("cow", 0.9, box=(0, 0, 9, 9)),
        seen("cow", 0.8, box=(4, 0, 13, 9)),
        seen("cow", 0.7, box=(8, 0, 17, 9)),
    ]
    kept = keep_detections(row, prompt_for(ONE_COW), Thresholds(max_overlap=0.4))
    assert kept == {"cow": [row[0], row[2]]}


def test_suppression_makes_no_room_for_the_seventeenth():
    found = [seen("cow", 0.9)] * 16 + [seen("cow", 0.5, box=(50, 50, 59, 59))]
    kept = keep_detections(found, prompt_for(ONE_COW), Thresholds(max_overlap=0.5))
    assert kept == {"cow": found[:1]}


def test_color_is_read_from_the_most_confident_objects_alone():
    metadata = prompt_for({**ONE_COW, "color": "red"}, tag="colors")
    assert evaluate_image([seen("cow", 0.8, "blue"), seen("cow", 0.9, "red")], metadata).correct
    verdict = evaluate_image([seen("cow", 0.9, "blue"), seen("cow", 0.8, "red")], metadata)
    assert verdict.reason == "expected red cow>=1, found 0 red; and 1 blue"


def test_every_one_of_several_must_have_the_color():
    metadata = prompt_for({"class": "cow", "count": 3, "color": "red"}, tag="colors")
    found = [seen("cow", 0.9, "white"), seen("cow", 0.8, "red"), seen("cow", 0.7, "red")]
    reason = evaluate_image(found, metadata).reason
    assert reason == "expected red cow>=3, found 2 red; and 2 red, 1 white"


def test_an_object_whose_color_was_not_read_has_none():
    metadata = prompt_for({**ONE_COW, "color": "red"}, tag="colors")
    assert evaluate_image([seen("cow")], metadata).reason == "expected red cow>=1, found 0 red; and "


def dog_stands(relation: str, count: int = 1) -> PromptMetadata:
    dog = {"class": "dog", "count": count, "position": [relation, 0]}
    return prompt_for({"class": "cow", "count": count}, dog, tag="position")


LEFT, RIGHT = (0, 40, 20, 60), (80, 40, 100, 60)


def test_the_relation_is_that_of_the_later_clause_to_the_earlier():
    found = [seen("cow", box=RIGHT), seen("dog", box=LEFT)]
    assert evaluate_image(found, dog_stands("left of")).correct
    verdict = evaluate_image(found, dog_stands("right of"))
    assert verdict.reason == "expected dog right of target, found left of target"


def test_the_relation_must_hold_between_all_pairs():
    cow, dog = seen("cow", box=(40, 40, 50, 50)), seen("dog", box=LEFT)
    metadata = dog_stands("left of", 2)
    assert evaluate_image([cow, cow, dog, dog], metadata).correct
    stray_dog = evaluate_image([cow, cow, dog, seen("dog", box=RIGHT)], metadata)
    assert stray_dog.reason == "expected dog left of target, found right of target"
    stray_cow = evaluate_image([cow, seen("cow", box=(-80, 40, -60, 60)), dog, dog], metadata)
    assert stray_cow.reason == "expected dog left of target, found right of target"


def test_without_a_target_no_relation_holds():
    verdict = evaluate_image([seen("dog", box=LEFT)], dog_stands("left of"))
    assert verdict.reason == "expected cow>=1, found 0\nno target for dog to be left of"


def test_a_target_of_the_wrong_color_is_no_target():
    dog = {**ONE_DOG, "position": ["left of", 0]}
    metadata = prompt_for({**ONE_COW, "color": "red"}, dog, tag="position")
    verdict = evaluate_image([seen("cow", color="blue", box=RIGHT), seen("dog", box=LEFT)], metadata)
    assert verdict.reason.endswith("\nno target for dog to be left of")


def test_a_clause_that_fails_on_color_is_not_asked_for_its_position():
    dog = {**ONE_DOG, "color": "red", "position": ["right of", 0]}
    found = [seen("cow", box=RIGHT), seen("dog", color="blue", box=LEFT)]
    verdict = evaluate_image(found, prompt_for(ONE_COW, dog, tag="position"))
    assert verdict.reason == "expected red dog>=1, found 0 red; and 1 blue"


@pytest.mark.parametrize(
    ("a", "expected"),
    [
        ((0, 50, 10, 60), {"left of"}),
        ((100, 50, 110, 60), {"right of"}),
        ((50, 0, 60, 10), {"above"}),
        ((50, 100, 60, 110), {"below"}),
        ((0, 0, 10, 10), {"left of", "above"}),
        ((100, 100, 110, 110), {"right of", "below"}),
        ((50, 50, 60, 60), set()),
        ((52, 50, 62, 60), set()),  # 2 px to the right: as much as a tenth of both widths
        ((54, 50, 64, 60), set()),  # half of the offset left, not more
        ((46, 50, 56, 60), set()),
        ((50, 46, 60, 56), set()),
        ((50, 54, 60, 64), set()),
        ((55, 50, 65, 60), {"right of"}),
        ((62, 50, 52, 60), set()),  # corners the other way round are the same box
    ],
)
def test_relations_to_a_box_in_the_middle(a: Box, expected: set[str]):
    assert relative_position(a, (50, 50, 60, 60), 0.1) == expected


@pytest.mark.parametrize(("x", "correct"), [(4, False), (5, True)])
def test_a_tenth_of_both_sizes_is_taken_off_where_nothing_else_is_said(x: int, correct: bool):
    found = [seen("cow", box=(0, 0, 10, 10)), seen("dog", box=(x, 0, x + 10, 10))]
    assert evaluate_image(found, dog_stands("right of")).correct is correct


def test_an_offset_of_less_than_a_thousandth_of_a_pixel_is_none():
    assert relative_position((0.0005, 0, 10.0005, 10), (0, 0, 10, 10), 0.0) == set()
    assert relative_position((0.002, 0, 10.002, 10), (0, 0, 10, 10), 0.0) == {"right of"}
    assert Thresholds(position=0).position == 0


def test_the_position_threshold_takes_off_both_sizes():
    a, b = (0, 0, 10, 10), (30, 0, 70, 10)  # 45 px apart, widths 10 and 40
    assert relative_position(a, b, 0.4) == {"left of"}
    assert relative_position(a, b, 0.5) == set()


def test_boxes_cover_their_last_pixel():
    assert box_iou((0, 0, 9, 9), (0, 0, 9, 4)) == 0.5
    assert box_iou((3, 3, 3, 3), (3, 3, 3, 3)) == 1.0
    assert box_iou((0, 0, 9, 9), (10, 0, 19, 9)) == 0.0
    assert box_iou((0, 0, 9, 9), (9, 9, 18, 18)) == pytest.approx(1 / 199)
    assert box_iou((5, 5, 0, 0), (5, 5, 0, 0)) == 0.0


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("detection", 1.5),
        ("counting", -0.1),
        ("max_overlap", 2),
        ("max_objects", 0),
        ("position", -1),
    ],
)
def test_thresholds_out_of_range_are_refused(name: str, value: Any):
    with pytest.raises(InvalidRequest, match=f"{name} is {value}"):
        Thresholds(**{name: value})


def test_a_mask_takes_no_part_in_equality():
    masked = Detection("cow", (0, 0, 9, 9), 0.5, mask=np.ones((10, 10), bool))
    assert masked == Detection("cow", (0, 0, 9, 9), 0.5)
    assert "mask" not in repr(masked)


@pytest.mark.parametrize("accepted", [{"max_objects": 1}, {"max_overlap": 0}, {"position": 1}])
def test_the_ends_of_the_ranges_of_thresholds_are_accepted(accepted: dict[str, Any]) -> None:
    assert asdict(Thresholds(**accepted)).items() >= accepted.items()
