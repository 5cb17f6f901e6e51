import json
from pathlib import Path

import pytest

from forejudge.cli.prompts_file import read_prompts
from forejudge.errors import InvalidRequest


def file_of(folder: Path, name: str, content: str | bytes) -> Path:
    path = folder / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def test_plain_lines_are_prompts_and_blank_ones_are_skipped(tmp_path: Path) -> None:
    path = file_of(tmp_path, "prompts.txt", "\ufeffa red circle\r\n\n  \n a “blue” square \n")
    first, second = read_prompts(path)
    assert (first.prompt, first.where) == ("a red circle", f"{path}, line 1")
    assert (second.prompt, second.where) == ("a “blue” square", f"{path}, line 4")
    assert json.loads(second.metadata) == {"prompt": "a “blue” square"}


def test_json_lines_are_kept_as_they_are(tmp_path: Path) -> None:
    line = '{"tag": "colors",  "include": [{"class": "circle", "count": 1}], "prompt": "a photo of a red circle"}'
    (read,) = read_prompts(file_of(tmp_path, "prompts.jsonl", line + "\n"))
    assert (read.prompt, read.metadata) == ("a photo of a red circle", line)


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("empty.txt", "", "holds no prompt"),
        ("blank.txt", "\n \n", "holds no prompt"),
        ("binary.txt", b"\xff\xfe\x00", "not UTF-8"),
        ("a.jsonl", '{"prompt": "x"}\n{"prompt": ', "line 2: not JSON"),
        ("b.jsonl", '{"prompt": "x"}\n\n{"tag": "colors"}', "line 3: expected an object"),
        ("c.jsonl", '{"prompt": "  "}', "line 1: expected an object"),
        ("d.jsonl", '["a red circle"]', "line 1: expected an object"),
    ],
)
def test_wrong_file_is_refused_with_the_line(tmp_path: Path, name: str, content: str | bytes, said: str) -> None:
    with pytest.raises(InvalidRequest, match=said):
        read_prompts(file_of(tmp_path, name, content))


def test_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidRequest, match="No such file"):
        read_prompts(tmp_path / "prompts.txt")
    with pytest.raises(InvalidRequest, match="Is a directory"):
        read_prompts(tmp_path)
