"""Configurations on disk: what is wrong is refused in one line that names the file and the field."""

from pathlib import Path

import pytest
from pydantic import BaseModel, ConfigDict

from forejudge.config_files import read_config, read_json_lines
from forejudge.errors import CheckpointError


class Recipe(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    blocks: int


def refusal(path: Path) -> str:
    """The one line with which a file is refused."""
    with pytest.raises(CheckpointError) as caught:
        read_config(path, Recipe)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('{"blocks": "many"}', "blocks = 'many': Input should be a valid integer"),
        ("{}", "blocks: Field required"),
        ('{"blocks": 3, "heads": 2}', "heads = 2: Extra inputs are not permitted"),
        ('{"blocks": 3', "Invalid JSON"),
        ("", "Invalid JSON"),
    ],
)
def test_a_wrong_config_is_refused_with_its_field(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "recipe.json"
    path.write_text(text)
    assert refusal(path).startswith(f"{path}: {said}")


def test_a_config_that_is_no_text_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "recipe.json"
    path.write_bytes(b"\xff\xfe\x00")
    assert refusal(path).startswith(f"{path}: Invalid JSON")


def test_a_missing_config_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "recipe.json"
    assert refusal(path).startswith(f"{path} is missing")
    path.write_text('{"blocks": 3}')
    assert read_config(path, Recipe) == Recipe(blocks=3)


def test_json_lines_are_read_whole_and_split_at_newlines_only(tmp_path: Path) -> None:
    class Note(BaseModel):
        text: str

    path = tmp_path / "notes.jsonl"
    assert read_json_lines(path, Note) == []
    path.write_bytes('{"text": "a\u2028b\u0085é"}\n\n{"text": "c"}\n{"te'.encode())
    assert [note.text for note in read_json_lines(path, Note)] == ["a\u2028b\u0085é", "c"]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b'{"blocks": 1}\n[]\n', "line 2: Input should be an object"),
        (b'{"blocks": "\xe9"}\n', "line 1: Invalid JSON"),
        (b'{"blocks": 1}\n{"blo\n', "line 2: Invalid JSON"),
        (b'{"blocks": "x"}', "line 1: blocks = 'x': Input should be a valid integer"),
    ],
)
def test_wrong_json_lines_are_refused_with_their_line(tmp_path: Path, content: bytes, said: str) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(content)
    with pytest.raises(CheckpointError) as caught:
        read_json_lines(path, Recipe)
    assert str(caught.value).startswith(f"{path}, {said}")
    assert str(caught.value).endswith("remove this line, or rename the file")
