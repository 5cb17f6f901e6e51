from pathlib import Path

import pytest

from forejudge.errors import InvalidRequest
from forejudge.evaluation.metadata import CountedObject, IncludedObject, PromptMetadata

OFFICIAL_LINES = Path(__file__).parents[3] / "shared/data/geneval/evaluation_metadata.jsonl"

LINES = [
    '{"tag": "colors", "include": [{"class": "cow", "count": 1, "color": "pink"}], "prompt": "a"}',
    '{"tag": "counting", "include": [{"class": "cow", "count": 2}], '
    '"exclude": [{"class": "cow", "count": 3}], "prompt": "a photo of two cows"}',
    '{"tag": "position", "include": [{"class": "cow", "count": 1}, '
    '{"class": "dog", "count": 1, "position": ["left of", 0]}], "prompt": "a"}',
]


@pytest.mark.parametrize("line", LINES)
def test_a_line_comes_back_as_it_was(line: str):
    assert PromptMetadata.from_line(line + "\n").to_line() == line


def test_every_line_of_genevals_own_file_comes_back_as_it_was():
    if not OFFICIAL_LINES.exists():
        pytest.skip(f"GenEval's prompt file is not at {OFFICIAL_LINES}")
    lines = OFFICIAL_LINES.read_text().splitlines()
    assert len(lines) == 553
    assert [PromptMetadata.from_line(line).to_line() for line in lines] == lines


def test_metadata_made_in_python_equals_the_line_read():
    made = PromptMetadata(
        tag="counting",
        include=(IncludedObject(class_name="cow", count=2),),
        exclude=(CountedObject(class_name="cow", count=3),),
        prompt="a photo of two cows",
    )
    assert made == PromptMetadata.from_line(LINES[1])
    assert made.to_line() == LINES[1]


def line_with(clause: str, tag: str = "position") -> str:
    first = '{"class": "cow", "count": 1}'
    return f'{{"tag": "{tag}", "include": [{first}, {clause}], "prompt": "a"}}'


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("", "got an empty line"),
        ('{"tag": "colors"', "Invalid JSON"),
        ('{"include": [{"class": "cow", "count": 1}], "prompt": "a"}', "tag: Field required"),
        ('{"tag": "colors", "include": [], "prompt": "a"}', "include is empty"),
        ('{"tag": "colors", "include": [{"class": "cow", "count": 1}], "prompt": ""}', "prompt: "),
        (line_with('{"class": "dog", "count": 1}', tag="colours"), "tag: Input should be"),
        (line_with('{"count": 1}'), "include.1.class: Field required"),
        (line_with('{"class_name": "dog", "count": 1}'), "include.1.class: Field required"),
        (line_with('{"class": "dog", "count": 0}'), "include.1.count: "),
        (line_with('{"class": "dog", "count": "1"}'), "include.1.count: "),
        (line_with('{"class": "dog", "count": 1, "color": "teal"}'), "include.1.color: "),
        (line_with('{"class": "dog", "count": 1, "colour": "red"}'), "include.1.colour: Extra"),
        (
            line_with('{"class": "dog", "count": 1, "position": ["near", 0]}'),
            "include.1.position.0",
        ),
        (
            line_with('{"class": "dog", "count": 1, "position": ["above", 1]}'),
            "include.1.position points to clause 1, expected an earlier clause",
        ),
        (
            line_with('{"class": "dog", "count": 1, "position": ["above", -1]}'),
            "include.1.position.1: ",
        ),
    ],
)
def test_a_bad_line_is_refused_in_one_line_that_names_the_problem(line: str, problem: str):
    with pytest.raises(InvalidRequest) as refusal:
        PromptMetadata.from_line(line)
    assert problem in str(refusal.value)
    assert "\n" not in str(refusal.value)
