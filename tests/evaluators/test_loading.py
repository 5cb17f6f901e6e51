import re
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
from PIL import Image

from forejudge.errors import CommandFailed, InvalidRequest
from forejudge.evaluators.base import Evaluation, Evaluator, FunctionEvaluator
from forejudge.evaluators.command import CommandEvaluator
from forejudge.evaluators.geneval_rules import Detection
from forejudge.evaluators.loading import GenEvalModels, load_evaluator
from forejudge.prompts.prompt_file import PromptLine
from tests.support.tiny_clip import save_tiny_clip
from tests.support.tiny_detector import tiny_mask2former

LINE = PromptLine("a star", '{"prompt": "a star"}', "line 1")
IMAGE_PLACEHOLDER = Image.new("RGB", (2, 2))


def answering(folder: Path, *answers: str) -> CommandEvaluator:
    path = folder / "judge.py"
    path.write_text(f"import sys\nsys.stdin.read()\nprint('\\n'.join({answers!r}))\n")
    return CommandEvaluator(f"{sys.executable} {path}")


def test_a_command_may_say_why_and_what_it_saw(tmp_path: Path) -> None:
    seen = '{"class": "star", "box": [0, 1, 2, 3], "confidence": 0.5, "color": "red"}'
    evaluator = answering(
        tmp_path, '{"correct": true}', f'{{"correct": false, "reason": "too red", "detections": [{seen}]}}'
    )
    assert evaluator([LINE, LINE], [IMAGE_PLACEHOLDER, IMAGE_PLACEHOLDER]) == [
        Evaluation(True, ""),
        Evaluation(False, "too red", (Detection("star", (0, 1, 2, 3), 0.5, "red"),)),
    ]


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        ("{}", "correct: Field required"),
        ('{"correct": "yes"}', "correct = 'yes': Input should be a valid boolean"),
        ('{"correct": 1}', "correct = 1: Input should be a valid boolean"),
        ('{"correct": true, "detections": [{"class": "star"}]}', "detections.0.box: Field required"),
        ('{"correct": null}', "correct = None: Input should be a valid boolean"),
        ('{"correct": tru', "Invalid JSON"),
    ],
)
def test_no_answer_counts_as_wrong_unless_it_says_so(tmp_path: Path, answer: str, said: str) -> None:
    with pytest.raises(CommandFailed) as failed:
        answering(tmp_path, answer)([LINE], [IMAGE_PLACEHOLDER])
    assert said in str(failed.value)


def test_the_miniatures_evaluator_has_a_name() -> None:
    assert load_evaluator("geneval-miniature").name == "geneval-miniature"


def test_a_command_is_named_as_it_was_given() -> None:
    command = f"{sys.executable} judge.py --threshold 0.5"
    assert load_evaluator(command).name == command


@pytest.mark.parametrize("name", ["nonesuch", "nonesuch --fast", "", " ", "./judge.py"])
def test_what_cannot_be_started_is_refused(name: str) -> None:
    with pytest.raises(InvalidRequest, match=r"unknown evaluator .*: expected geneval, geneval-miniature, vqa:FOLDER"):
        load_evaluator(name)


def test_geneval_without_its_detector_says_how_to_make_it() -> None:
    with pytest.raises(InvalidRequest, match=r"convert-detector WEIGHTS\.pth FOLDER`, then give --detector FOLDER"):
        load_evaluator("geneval")


def test_geneval_is_loaded_with_its_models(tmp_path: Path) -> None:
    tiny_mask2former().save_pretrained(tmp_path / "eyes")
    models = GenEvalModels(str(tmp_path / "eyes"), str(save_tiny_clip(tmp_path / "colors")), "cpu")
    evaluator = load_evaluator("geneval", models)
    assert re.fullmatch(
        r"geneval \(detector eyes \w{16}, colors by colors \w{16}\), not comparable with GenEval's figures",
        evaluator.name,
    )
    dog = '{"tag": "single_object", "include": [{"class": "dog", "count": 1}], "prompt": "a dog"}'
    (judged,) = evaluator([PromptLine("a dog", dog, "line 1")], [IMAGE_PLACEHOLDER])
    assert all(0.3 < each.confidence <= 1 or not judged.correct for each in judged.detections)


@pytest.mark.parametrize("models", [GenEvalModels(detector="eyes"), GenEvalModels(color_model="colors")])
def test_models_go_with_geneval_alone(models: GenEvalModels) -> None:
    with pytest.raises(InvalidRequest, match="go with the evaluator geneval, not with 'geneval-miniature'"):
        load_evaluator("geneval-miniature", models)


def is_red(prompt: str, image: Image.Image) -> bool:
    return "red" in prompt and image.getpixel((0, 0)) == (255, 0, 0)


class Strict(Evaluator):
    name = "strict"

    def __call__(self, lines: Sequence[PromptLine], images: Sequence[Image.Image]) -> list[Evaluation]:
        return [Evaluation(False, "never right") for _ in lines]


def test_a_function_is_an_evaluator() -> None:
    evaluator = load_evaluator(f"{__name__}:is_red")
    red, blue = (Image.new("RGB", (2, 2), color) for color in ("red", "blue"))
    line = PromptLine("a red star", '{"prompt": "a red star"}', "line 1")
    assert evaluator.name == f"{__name__}:is_red"
    assert [each.correct for each in evaluator([line, line], [red, blue])] == [True, False]


def test_a_class_is_an_evaluator() -> None:
    assert load_evaluator(f"{__name__}:Strict")([LINE], [IMAGE_PLACEHOLDER]) == [Evaluation(False, "never right")]


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("nonesuch.module:is_red", "evaluator 'nonesuch.module:is_red' cannot be imported"),
        ("math:missing", "evaluator 'math:missing' cannot be imported"),
        ("fractions:Fraction", "'fractions:Fraction' is no Evaluator"),
    ],
)
def test_other_objects_are_refused(name: str, said: str) -> None:
    with pytest.raises(InvalidRequest, match=said):
        load_evaluator(name)


def test_a_function_must_return_a_bool() -> None:
    with pytest.raises(InvalidRequest, match="evaluator operator:eq returned 'yes': expected True, False"):
        FunctionEvaluator(lambda prompt, image: "yes", "operator:eq")([LINE], [IMAGE_PLACEHOLDER])
