import sys
from pathlib import Path

import pytest
from PIL import Image

from forejudge.errors import CommandFailed, InvalidRequest
from forejudge.evaluation.detection import Detection
from forejudge.evaluation.evaluators import CommandEvaluator, Judgement, load_evaluator
from forejudge.evaluation.prompts_file import PromptLine

LINE = PromptLine("a star", '{"prompt": "a star"}', "line 1")
PICTURE = Image.new("RGB", (2, 2))


def answering(folder: Path, *answers: str) -> CommandEvaluator:
    path = folder / "judge.py"
    path.write_text(f"import sys\nsys.stdin.read()\nprint('\\n'.join({answers!r}))\n")
    return CommandEvaluator(f"{sys.executable} {path}")


def test_a_command_may_say_why_and_what_it_saw(tmp_path: Path) -> None:
    seen = '{"class": "star", "box": [0, 1, 2, 3], "confidence": 0.5, "color": "red"}'
    evaluator = answering(
        tmp_path, '{"correct": true}', f'{{"correct": false, "reason": "too red", "detections": [{seen}]}}'
    )
    assert evaluator([LINE, LINE], [PICTURE, PICTURE]) == [
        Judgement(True, ""),
        Judgement(False, "too red", (Detection("star", (0, 1, 2, 3), 0.5, "red"),)),
    ]


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        ("{}", "correct: Field required"),
        ('{"correct": "yes"}', "correct: Input should be a valid boolean"),
        ('{"correct": 1}', "correct: Input should be a valid boolean"),
        ('{"correct": true, "detections": [{"class": "star"}]}', "detections.0.box: Field required"),
        ('{"correct": null}', "correct: Input should be a valid boolean"),
        ('{"correct": tru', "Invalid JSON"),
    ],
)
def test_no_answer_counts_as_wrong_unless_it_says_so(tmp_path: Path, answer: str, said: str) -> None:
    with pytest.raises(CommandFailed) as failed:
        answering(tmp_path, answer)([LINE], [PICTURE])
    assert said in str(failed.value)


def test_the_miniatures_evaluator_has_a_name() -> None:
    assert load_evaluator("geneval-miniature").name == "geneval-miniature"


def test_a_command_is_named_as_it_was_given() -> None:
    command = f"{sys.executable} judge.py --threshold 0.5"
    assert load_evaluator(command).name == command


@pytest.mark.parametrize("name", ["nonesuch", "nonesuch --fast", "", " ", "./judge.py"])
def test_what_cannot_be_started_is_refused(name: str) -> None:
    with pytest.raises(InvalidRequest, match=r"unknown evaluator .*: expected geneval-miniature or a command"):
        load_evaluator(name)


def test_what_does_not_come_with_this_version_is_said_by_name() -> None:
    with pytest.raises(InvalidRequest, match="GenEval's own detector does not come with this version"):
        load_evaluator("geneval")
