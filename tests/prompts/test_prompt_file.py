import json
from pathlib import Path

import pytest

from forejudge.errors import InvalidRequest
from forejudge.noise import candidate_seed
from forejudge.prompts.prompt_file import PromptLine, check_lines, groups_of, read_lines, read_prompts
from tests.support.stand_in import prompt_lines


def test_outer_blanks_make_no_other_prompt() -> None:
    groups = groups_of(prompt_lines("a star", " a star "), candidates=2, run_seed=3)
    assert [group.image_index for group in groups] == [0, 1]
    assert groups[1].seeds == tuple(candidate_seed(3, "a star", 1, index) for index in range(2))


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


@pytest.mark.parametrize("name", ["p.jsonl", "p.json", "p.ndjson", "p.JSONL", "p.txt", "p"])
@pytest.mark.parametrize(
    "content",
    [
        '{"prompt": "a red circle"}\n{"prompt": "a star"}',
        '\n [\n {"prompt": "a red circle"},\n {"prompt": "a star"}\n]\n',
        '["a red circle", "a star"]',
    ],
)
def test_the_content_tells_the_format_and_not_the_name(tmp_path: Path, name: str, content: str) -> None:
    read = read_prompts(file_of(tmp_path, name, content))
    assert [line.prompt for line in read] == ["a red circle", "a star"]
    assert [json.loads(line.metadata)["prompt"] for line in read] == ["a red circle", "a star"]


def test_json_lines_are_kept_as_they_are(tmp_path: Path) -> None:
    line = '{"tag": "colors",  "include": [{"class": "circle", "count": 1}], "prompt": "a photo of a red circle"}'
    (read,) = read_prompts(file_of(tmp_path, "prompts.jsonl", line + "\n"))
    assert (read.prompt, read.metadata) == ("a photo of a red circle", line)


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("empty.txt", "", "holds no prompt"),
        ("blank.txt", "\n \n", "holds no prompt"),
        ("array.json", "[]", "holds no prompt"),
        ("binary.txt", b"\xff\xfe\x00", "not UTF-8"),
        ("a.jsonl", '{"prompt": "x"}\n{"prompt": ', "line 2: not JSON"),
        ("b.jsonl", '{"prompt": "x"}\n\n{"tag": "colors"}', "line 3: expected an object"),
        ("c.jsonl", '{"prompt": "  "}', "line 1: expected an object"),
        ("d.jsonl", "a red circle", "line 1: not JSON"),
        ("d.txt", '["a red circle", 3]', "entry 2: expected an object"),
        ("e.txt", '[\n\n{"prompt": "x"},,]', "from line 1 on: not JSON"),
        ("f.txt", 'a star\n{"prompt": "x"}', "line 2: JSON among plain prompts"),
        ("g.json", "[" * 100_000, "from line 1 on: not JSON"),
        ("h.jsonl", '{"prompt": "x"}\n{"a": ' + "[" * 100_000, "line 2: not JSON"),
        ("i.csv", "prompt\na star", r"i\.csv is a table"),
        ("j.TSV", "prompt\ta star", r"j\.TSV is a table"),
        ("k.jsonl", '{"prompt": "x"}\n{"prompt": "half \\ud83d"}', r"k\.jsonl, line 2: the prompt has the character"),
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


def test_metadata_is_read_off_a_line(tmp_path: Path) -> None:
    line = '{"tag": "colors", "include": [{"class": "cow", "count": 1, "color": "pink"}], "prompt": "a pink cow"}'
    (read,) = read_prompts(file_of(tmp_path, "prompts.jsonl", line))
    metadata = read.geneval_metadata()
    assert (metadata.tag, metadata.include[0].color, metadata.to_line()) == ("colors", "pink", line)


@pytest.mark.parametrize(
    ("name", "content"), [("a.txt", "\na red circle"), ("a.jsonl", '\n{"prompt": "x", "tag": "colours"}')]
)
def test_a_line_without_metadata_is_named(tmp_path: Path, name: str, content: str) -> None:
    (read,) = read_prompts(file_of(tmp_path, name, content))
    with pytest.raises(InvalidRequest, match=rf"{name}, line 2: not a GenEval metadata line: .*include"):
        read.geneval_metadata()


def test_names_are_lines_too(tmp_path: Path) -> None:
    assert read_lines(file_of(tmp_path, "names.txt", "cat\n\n  hot dog \r\n"), "class name") == {1: "cat", 3: "hot dog"}
    with pytest.raises(InvalidRequest, match=r"empty\.txt holds no class name: expected one a line"):
        read_lines(file_of(tmp_path, "empty.txt", "\n"), "class name")


def test_the_first_line_whose_prompt_is_refused_is_named_and_each_prompt_checked_once() -> None:
    checked: list[str] = []

    def check(prompt: str) -> None:
        checked.append(prompt)
        if prompt == "bad":
            raise InvalidRequest("too long")

    lines = [PromptLine(prompt, "{}", f"line {number}") for number, prompt in enumerate(["a", "a", "bad", "b", "bad"])]
    with pytest.raises(InvalidRequest, match=r"^line 2: too long$"):
        check_lines(lines, check)
    assert checked == ["a", "bad"]
