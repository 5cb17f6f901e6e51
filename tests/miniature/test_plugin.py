import pytest
import torch
from PIL import Image, ImageDraw

from forejudge.errors import InvalidRequest
from forejudge.generators import load_generator
from forejudge.miniature.evaluator import MiniatureEvaluator
from forejudge.miniature.prompts import sample_prompt_lines
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


def test_the_miniature_declares_the_words_of_its_prompts() -> None:
    generator = load_generator("miniature", torch.device("cpu"), torch.float32)
    assert generator.vocabulary is not None
    assert len(generator.vocabulary) < 100
    lines = sample_prompt_lines(200, "training", 0) + sample_prompt_lines(200, "validation", 0)
    assert not [word for line in lines for word in generator.unknown_words(line.prompt)]
    assert generator.unknown_words("a photo of a cat on a sofa") == ["cat", "on", "sofa"]
