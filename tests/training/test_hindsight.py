"""Other questions about labeled candidates: which are asked, and that their answers follow from the detections."""

import json

import pytest

from forejudge.errors import InvalidRequest
from forejudge.evaluation.metrics import rows_by_group
from forejudge.prompts.geneval import Color, DescribedObject, Description, PromptMetadata
from forejudge.training.hindsight import AskedGroup, OtherQuestions

TWO = Description("counting", (DescribedObject("disc"),), count=2).metadata
THREE = Description("counting", (DescribedObject("disc"),), count=3).metadata
RED = Description("colors", (DescribedObject("disc", "red"),)).metadata
STAR = Description("single_object", (DescribedObject("star"),)).metadata
OWN = AskedGroup([4, 5, 6], TWO.prompt, [True, False, True])


def detections(count: int, color: Color | None = "blue") -> str:
    """`count` discs side by side, as labels keep them."""
    disc = {"class": "disc", "confidence": 1.0} | ({"color": color} if color else {})
    return json.dumps([disc | {"box": (20 * index, 0, 20 * index + 9, 9)} for index in range(count)])


def questions(*prompts: PromptMetadata, color: Color | None = "blue") -> OtherQuestions:
    """Two discs, three, and two, the first four rows being of another group."""
    return OtherQuestions(prompts, [detections(0)] * 4 + [detections(count, color) for count in (2, 3, 2)])


def test_other_questions_are_answered_from_what_the_images_show() -> None:
    (asked,) = questions(TWO, THREE).ask([OWN], count=3, seed=0)
    assert asked == AskedGroup([4, 5, 6], "a photo of three discs", [False, True, False])


def test_a_prompt_that_only_some_candidates_show_comes_first() -> None:
    for seed in range(4):
        (asked,) = questions(TWO, RED, THREE).ask([OWN], count=1, seed=seed)
        assert asked.prompt == THREE.prompt


def test_a_group_is_asked_about_classes_of_its_own_prompt_only() -> None:
    assert questions(TWO, STAR).ask([OWN], count=3, seed=0) == []


def test_a_color_that_was_not_read_is_not_asked_for() -> None:
    (asked,) = questions(TWO, RED).ask([OWN], count=3, seed=0)
    assert asked.correct == [False, False, False]
    assert questions(TWO, RED, color=None).ask([OWN], count=3, seed=0) == []


def test_the_choice_depends_on_the_seed_and_the_group_alone() -> None:
    colors = [Description("colors", (DescribedObject("disc", color),)).metadata for color in ("red", "green", "pink")]
    several = questions(TWO, *colors)
    first, again = (several.ask([OWN], count=1, seed=0) for _ in range(2))
    assert first == again
    assert several.ask([OWN, OWN], count=1, seed=0)[:1] == first
    assert len({several.ask([OWN], count=1, seed=seed)[0].prompt for seed in range(8)}) > 1


def test_labels_that_do_not_follow_from_detections_are_refused() -> None:
    questions(TWO).check([OWN])
    with pytest.raises(InvalidRequest, match=r"labels for 'a photo of two discs' do not follow .* set hindsight=0"):
        questions(TWO).check([AskedGroup([4, 5, 6], TWO.prompt, [True, True, True])])


def test_rows_are_grouped_in_the_order_they_come() -> None:
    assert rows_by_group(["b", "a", "b"]) == {"b": [0, 2], "a": [1]}
