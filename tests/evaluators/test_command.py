import os
import sys
from contextlib import suppress
from pathlib import Path
from select import select

import pytest
from PIL import Image
from pydantic import BaseModel

from forejudge.errors import CommandFailed, InvalidRequest
from forejudge.evaluators import command as command_module
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
        ("print('[' * 10**5)\nprint('{}')", "in line 1 (Invalid JSON"),
        ("sys.stdout.write('\\0' * 2)", "gave 1 lines for 2 images"),
        ("print('x' * 10**6 + '\\n' + 'y ' * 10**6, file=sys.stderr)", "last line on stderr: y y y y"),
        ('print("loading\\nno weights", file=sys.stderr)', "gave 0 lines for 2 images, expected one each; its last "),
    ],
)
def test_every_failure_is_one_line_that_quotes_the_command(tmp_path: Path, code: str, said: str) -> None:
    with pytest.raises(CommandFailed) as failed:
        script(tmp_path, code)(LINES, IMAGES, Answer)
    assert said in str(failed.value)
    assert "a judge.py" in str(failed.value)
    assert "\n" not in str(failed.value)
    assert len(str(failed.value)) < 1000


def test_a_command_that_hangs_is_stopped_with_all_it_started(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(command_module, "LOADING_SECONDS", 0)
    monkeypatch.setattr(command_module, "SECONDS_PER_IMAGE", 0.25)
    command = ImageCommand(f"sh -c 'sleep 3600 & echo $! > {tmp_path}/child; wait'")
    with pytest.raises(CommandFailed, match=r"was stopped, it gave no answer for 2 images in 0\.5 s: try it by hand"):
        command(LINES, IMAGES, Answer)
    with suppress(ProcessLookupError):  # gone already
        ended = os.pidfd_open(int((tmp_path / "child").read_text()))
        assert select([ended], [], [], 10)[0] == [ended]
        os.close(ended)


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
