from pathlib import Path

import pytest

from forejudge.evaluation.description import Description, Wanted, plural, with_article
from forejudge.evaluation.metadata import PromptMetadata


@pytest.mark.parametrize(
    ("description", "line"),
    [
        (
            Description("single_object", (Wanted("hourglass"),)),
            '{"tag": "single_object", "include": [{"class": "hourglass", "count": 1}], '
            '"prompt": "a photo of an hourglass"}',
        ),
        (
            Description("two_object", (Wanted("heart"), Wanted("arrow"))),
            '{"tag": "two_object", "include": [{"class": "heart", "count": 1}, {"class": "arrow", "count": 1}], '
            '"prompt": "a photo of a heart and an arrow"}',
        ),
        (
            Description("counting", (Wanted("cross"),), count=3),
            '{"tag": "counting", "include": [{"class": "cross", "count": 3}], '
            '"exclude": [{"class": "cross", "count": 4}], "prompt": "a photo of three crosses"}',
        ),
        (
            Description("colors", (Wanted("moon", "orange"),)),
            '{"tag": "colors", "include": [{"class": "moon", "count": 1, "color": "orange"}], '
            '"prompt": "a photo of an orange moon"}',
        ),
        (
            Description("position", (Wanted("star"), Wanted("ring")), relation="left of"),
            '{"tag": "position", "include": [{"class": "ring", "count": 1}, '
            '{"class": "star", "count": 1, "position": ["left of", 0]}], "prompt": "a photo of a star left of a ring"}',
        ),
        (
            Description("color_attr", (Wanted("star", "red"), Wanted("frame", "blue"))),
            '{"tag": "color_attr", "include": [{"class": "star", "count": 1, "color": "red"}, '
            '{"class": "frame", "count": 1, "color": "blue"}], "prompt": "a photo of a red star and a blue frame"}',
        ),
    ],
    ids=lambda value: value.tag if isinstance(value, Description) else "",
)
def test_metadata_is_worded_as_geneval_words_it(description: Description, line: str) -> None:
    assert description.metadata.to_line() == line


def test_plurals_and_articles() -> None:
    assert [plural(kind) for kind in ("star", "cross", "wine glass")] == ["stars", "crosses", "wine glasses"]
    assert [with_article(noun) for noun in ("orange star", "star")] == ["an orange star", "a star"]


def described(metadata: PromptMetadata) -> Description:
    """The description that has this metadata, if its wording is right."""
    include = metadata.include[::-1] if metadata.tag == "position" else metadata.include
    wanted = tuple(Wanted(item.class_name, item.color) for item in include)
    position = include[0].position
    return Description(metadata.tag, wanted, include[0].count, position[0] if position else None)


def test_every_prompt_of_geneval_is_worded_as_in_its_own_file(geneval_data: Path) -> None:
    lines = (geneval_data / "evaluation_metadata.jsonl").read_text().splitlines()
    assert len(lines) == 553
    assert [described(PromptMetadata.from_line(line)).metadata.to_line() for line in lines] == lines
