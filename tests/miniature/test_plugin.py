import pytest
from PIL import Image, ImageDraw

from forejudge.errors import InvalidRequest
from forejudge.miniature.evaluator import MiniatureEvaluator
from forejudge.prompts.prompt_file import PromptLine

RED = PromptLine(
    "a photo of a red circle",
    '{"tag": "colors", "include": [{"class": "circle", "count": 1, "color": "red"}], '
    '"prompt": "a photo of a red circle"}',
    "prompts.jsonl, line 1",
)
PLAIN = PromptLine("a red circle", '{"prompt": "a red circle"}', "prompts.txt, line 2")


def circle(color: str) -> Image.Image:
    image = Image.new("RGB", (256, 256), (229, 229, 229))
    ImageDraw.Draw(image).ellipse((92, 92, 164, 164), fill=color)
    return image.resize((64, 64), Image.Resampling.BOX)


def test_images_are_evaluated_by_their_own_line() -> None:
    right, wrong = MiniatureEvaluator()([RED, RED], [circle("red"), circle("blue")])
    assert right.correct
    assert [found.class_name for found in right.detections] == ["circle"]
    assert not wrong.correct
    assert "expected red circle>=1, found 0 red" in wrong.reason


def test_a_prompt_that_does_not_say_what_it_asks_for_is_named_beforehand() -> None:
    with pytest.raises(InvalidRequest, match=r"prompts\.txt, line 2: not a GenEval metadata line"):
        MiniatureEvaluator().check([RED, PLAIN])


def test_a_class_of_another_world_is_named_beforehand() -> None:
    """Every image of it would be wrong."""
    metadata = '{"tag": "single_object", "include": [{"class": "zebra", "count": 1}], "prompt": "a zebra"}'
    line = PromptLine("a zebra", metadata, "prompts.jsonl, line 1")
    with pytest.raises(InvalidRequest, match=r"prompts\.jsonl, line 1: the detector knows no 'zebra', only shapes of"):
        MiniatureEvaluator().check([line])
