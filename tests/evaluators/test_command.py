import sys
from pathlib import Path

import pytest
from PIL import Image
from pydantic import BaseModel

from forejudge.errors import CommandFailed, InvalidRequest
from forejudge.evaluators.command import ImageCommand
from forejudge.prompts.prompt_file import PromptLine

LINES = [
    PromptLine("a star", '{"tag": "counting", "prompt": "a star"}', "line 1"),
    PromptLine("zwei Bücher", '{"prompt": "zwei Bücher"}', "line 2"),
]
IMAGES = [Image.new("RGB", (2, 2), color) for color in ("red", "blue")]


class Answer(BaseModel):
    correct: bool


class Echo(BaseModel):
    prompt: str
    tag: str | None
    red: int
    image: str
    call: int


def script(folder: Path, code: str) -> ImageCommand:
    path = folder / "a judge.py"
    path.write_text("import json, os, sys\nlines = [json.loads(line) for line in sys.stdin]\n" + code)
    return ImageCommand(f"{sys.executable} '{path}'")


def test_the_command_sees_image_prompt_and_metadata_in_order(tmp_path: Path) -> None:
    command = script(
        tmp_path,
        """
from PIL import Image
for line in lines:
    red, _, _ = Image.open(line["image"]).getpixel((0, 0))
    tag = line["metadata"].get("tag")
    print(json.dumps({"prompt": line["prompt"], "tag": tag, "red": red, "image": line["image"], "call": os.getpid()}))
""",
    )
    first, second = command(LINES, IMAGES, Echo)
    assert (first.prompt, first.tag, first.red) == ("a star", "counting", 255)
    assert (second.prompt, second.tag, second.red) == ("zwei Bücher", None, 0)
    assert first.call == second.call, "models are loaded once for all images"
    assert not Path(first.image).exists(), "nothing is left behind"


@pytest.mark.parametrize(
    ("code", "said"),
    [
        ('print(json.dumps({"correct": True}))', "gave 1 lines for 2 images, expected one each"),
        ("for _ in range(3): print('{\"correct\": true}')", "gave 3 lines for 2 images"),
        ("for _ in lines: print('right')", "answered 'right' in line 1 (Invalid JSON"),
        ("for _ in lines: print('{\"right\": true}')", "in line 1 (correct: Field required)"),
        ("sys.exit('no detector here')", "ended with status 1; its last line on stderr: no detector here"),
        ("os.kill(os.getpid(), 9)", "ended with status -9; its last line on stderr: none"),
        ('print("loading\\nno weights", file=sys.stderr)', "gave 0 lines for 2 images, expected one each; its last "),
    ],
)
def test_every_failure_is_one_line_that_quotes_the_command(tmp_path: Path, code: str, said: str) -> None:
    with pytest.raises(CommandFailed) as failed:
        script(tmp_path, code)(LINES, IMAGES, Answer)
    assert said in str(failed.value)
    assert "a judge.py" in str(failed.value)
    assert "\n" not in str(failed.value)


def test_the_last_line_on_stderr_is_quoted(tmp_path: Path) -> None:
    with pytest.raises(CommandFailed, match=r"stderr: no weights$"):
        script(tmp_path, 'print("loading\\nno weights", file=sys.stderr)')(LINES, IMAGES, Answer)


def test_no_shell_reads_the_command(tmp_path: Path) -> None:
    command = ImageCommand(f"{sys.executable} -c 'import sys; sys.exit(sys.argv[1])' '$HOME; rm *'")
    with pytest.raises(CommandFailed, match=r"stderr: \$HOME; rm \*"):
        command(LINES, IMAGES, Answer)


def test_a_program_that_is_not_there_is_named() -> None:
    with pytest.raises(CommandFailed, match=r"'nonesuch --fast' cannot be started \(No such file"):
        ImageCommand("nonesuch --fast")(LINES, IMAGES, Answer)


def test_quotes_that_do_not_match_are_refused() -> None:
    with pytest.raises(InvalidRequest, match="No closing quotation"):
        ImageCommand("judge 'me")


def test_numbers_are_evaluated_by_images_not_by_blank_lines(tmp_path: Path) -> None:
    answers = script(tmp_path, "for line in lines: print(json.dumps({'correct': False}), end='\\n\\n')")
    assert [answer.correct for answer in answers(LINES, IMAGES, Answer)] == [False, False]
