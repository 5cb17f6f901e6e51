from collections import Counter
from pathlib import Path

import pytest

from forejudge.errors import InvalidRequest
from forejudge.prompts.geneval import (
    TASKS,
    CountedObject,
    DescribedObject,
    Description,
    IncludedObject,
    PromptMetadata,
    normalized_text,
    plural,
    prompt_content,
    sample_prompts,
    with_article,
)
from forejudge.prompts.prompt_file import read_prompts


@pytest.mark.parametrize(
    ("description", "line"),
    [
        (
            Description("single_object", (DescribedObject("hourglass"),)),
            '{"tag": "single_object", "include": [{"class": "hourglass", "count": 1}], '
            '"prompt": "a photo of an hourglass"}',
        ),
        (
            Description("two_object", (DescribedObject("heart"), DescribedObject("arrow"))),
            '{"tag": "two_object", "include": [{"class": "heart", "count": 1}, {"class": "arrow", "count": 1}], '
            '"prompt": "a photo of a heart and an arrow"}',
        ),
        (
            Description("counting", (DescribedObject("cross"),), count=3),
            '{"tag": "counting", "include": [{"class": "cross", "count": 3}], '
            '"exclude": [{"class": "cross", "count": 4}], "prompt": "a photo of three crosses"}',
        ),
        (
            Description("colors", (DescribedObject("moon", "orange"),)),
            '{"tag": "colors", "include": [{"class": "moon", "count": 1, "color": "orange"}], '
            '"prompt": "a photo of an orange moon"}',
        ),
        (
            Description("position", (DescribedObject("star"), DescribedObject("ring")), relation="left of"),
            '{"tag": "position", "include": [{"class": "ring", "count": 1}, '
            '{"class": "star", "count": 1, "position": ["left of", 0]}], "prompt": "a photo of a star left of a ring"}',
        ),
        (
            Description("color_attr", (DescribedObject("star", "red"), DescribedObject("frame", "blue"))),
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
    wanted = tuple(DescribedObject(item.class_name, item.color) for item in include)
    position = include[0].position
    return Description(metadata.tag, wanted, include[0].count, position[0] if position else None)


def test_every_prompt_of_geneval_is_worded_as_in_its_own_file(geneval_data: Path) -> None:
    lines = (geneval_data / "evaluation_metadata.jsonl").read_text().splitlines()
    assert len(lines) == 553
    assert [described(PromptMetadata.from_line(line)).metadata.to_line() for line in lines] == lines


OBJECTS = ("person", "cat", "bus")
EVERY_PROMPT = {
    "single_object": 3,
    "two_object": 3 * 2,
    "counting": 3 * 3,
    "colors": 2 * 10,
    "position": 3 * 2 * 4,
    "color_attr": 2 * 10 * 9,
}


def texts(prompts: list[PromptMetadata]) -> list[str]:
    return [normalized_text(metadata.prompt) for metadata in prompts]


def test_all_there_are_come_once() -> None:
    every = sample_prompts(OBJECTS, sum(EVERY_PROMPT.values()), seed=0)
    assert Counter(metadata.tag for metadata in every) == EVERY_PROMPT
    assert len(set(texts(every))) == len(every)
    assert [PromptMetadata.from_line(metadata.to_line()) for metadata in every] == every


def test_more_than_there_are_is_refused_with_how_many_there_are() -> None:
    excluded = ["A photo of a  cat."]
    with pytest.raises(InvalidRequest, match="count = 243: 3 objects give only 241 prompts"):
        sample_prompts(OBJECTS, 243, seed=0, excluded=excluded)
    assert len(sample_prompts(OBJECTS, 241, seed=0, excluded=excluded)) == 241


def test_tasks_have_equal_shares_until_they_run_out() -> None:
    counts = Counter(metadata.tag for metadata in sample_prompts(OBJECTS, 50, seed=0))
    assert counts == {
        "single_object": 3,
        "two_object": 6,
        "counting": 9,
        "colors": 11,
        "position": 11,
        "color_attr": 10,
    }


def test_excluded_prompts_do_not_come_in_whatever_spelling() -> None:
    excluded = [f"  {metadata.prompt.upper()} !\n" for metadata in sample_prompts(OBJECTS, 100, seed=1)]
    left = sample_prompts(OBJECTS, 60, seed=0, excluded=excluded)
    assert not set(texts(left)) & {normalized_text(prompt) for prompt in excluded}


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("a red dog and a blue cat", "a blue cat and a red dog"),
        ("a photo of a red dog and a blue cat", "A photo of  a blue cat and a red dog."),
        ("a photo of a cat left of a dog", "a photo of a dog right of a cat"),
        ("a photo of an owl below a dog", "a dog above an owl"),
    ],
)
def test_prompts_that_ask_for_the_same_are_equal(one: str, other: str) -> None:
    assert prompt_content(one) == prompt_content(other)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("a cat left of a dog", "a cat right of a dog"),
        ("a cat above a dog", "a dog above a cat"),
        ("a cat above a dog", "a cat left of a dog"),
        ("a red dog and a blue cat", "a blue dog and a red cat"),
    ],
)
def test_prompts_that_ask_for_something_else_differ(one: str, other: str) -> None:
    assert prompt_content(one) != prompt_content(other)


def test_reordered_and_mirrored_prompts_are_excluded_too() -> None:
    everything = sample_prompts(OBJECTS, sum(EVERY_PROMPT.values()), seed=0)
    excluded = ["a bus and a cat", "a cat left of a bus", "a photo of a red cat and a blue bus"]
    left = sample_prompts(OBJECTS, len(everything) - 2 * len(excluded), seed=0, excluded=excluded)
    assert not set(map(prompt_content, excluded)) & {prompt_content(metadata.prompt) for metadata in left}


def test_the_seed_decides_and_more_prompts_begin_with_fewer() -> None:
    prompts = sample_prompts(OBJECTS, 60, seed=3)
    assert sample_prompts(OBJECTS, 60, seed=3) == prompts
    assert sample_prompts(OBJECTS, 20, seed=3) == prompts[:20]
    assert set(texts(sample_prompts(OBJECTS, 60, seed=4))) != set(texts(prompts))


def test_persons_have_no_color() -> None:
    for metadata in sample_prompts(OBJECTS, sum(EVERY_PROMPT.values()), seed=0):
        assert not any(item.class_name == "person" and item.color for item in metadata.include)


def test_two_objects_differ_and_so_do_their_colors() -> None:
    for metadata in sample_prompts(OBJECTS, sum(EVERY_PROMPT.values()), seed=0):
        assert len({item.class_name for item in metadata.include}) == len(metadata.include)
        if metadata.tag == "color_attr":
            assert len({item.color for item in metadata.include}) == 2


def test_one_wording_of_two_tasks_comes_once() -> None:
    of_all_tasks = 2 + 2 + 2 * 3 + 2 * 10 + 2 * 4 + 2 * 90
    every = sample_prompts(("car", "orange car"), of_all_tasks - 1, seed=0)
    assert texts(every).count("a photo of an orange car") == 1
    with pytest.raises(InvalidRequest, match=f"2 objects give only {of_all_tasks - 1} "):
        sample_prompts(("car", "orange car"), of_all_tasks, seed=0)


def test_repeated_objects_count_once_and_none_are_refused() -> None:
    assert sample_prompts((*OBJECTS, "cat"), 40, seed=0) == sample_prompts(OBJECTS, 40, seed=0)
    with pytest.raises(InvalidRequest, match="list of objects is empty"):
        sample_prompts([], 1, seed=0)


def test_few_prompts_of_many_objects_take_no_time() -> None:
    thousand = [f"object {number}" for number in range(1000)]
    assert len(set(texts(sample_prompts(thousand, 600, seed=0)))) == 600


def test_a_training_set_shares_no_prompt_with_the_benchmark(geneval_data: Path) -> None:
    benchmark = [line.prompt for line in read_prompts(geneval_data / "evaluation_metadata.jsonl")]
    objects = (geneval_data / "object_names.txt").read_text().splitlines()
    prompts = sample_prompts(objects, 6000, seed=0, excluded=benchmark)
    assert len(set(texts(prompts)) | set(map(normalized_text, benchmark))) == 6000 + 553
    assert not set(map(prompt_content, benchmark)) & {prompt_content(metadata.prompt) for metadata in prompts}
    counts = Counter(metadata.tag for metadata in prompts)
    assert counts["single_object"] == 0, "the benchmark holds all of them"
    assert all(counts[tag] > 100 for tag in TASKS if tag != "single_object")


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


@pytest.mark.parametrize("further", ['"seed": 3, "id": "x7"', '"exclude": null'])
def test_further_keys_of_a_line_are_ignored(further: str):
    assert PromptMetadata.from_line(LINES[0].replace("{", f"{{{further}, ", 1)) == PromptMetadata.from_line(LINES[0])


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
        ('{"tag": "colors", "include": [{"class": "cow", "count": 1}], "prompt": ""}', "prompt = '': "),
        (line_with('{"class": "dog", "count": 1}', tag="colours"), "tag = 'colours': Input should be"),
        (line_with('{"count": 1}'), "include.1.class: Field required"),
        (line_with('{"class_name": "dog", "count": 1}'), "include.1.class: Field required"),
        (line_with('{"class": "dog", "count": 0}'), "include.1.count = 0: "),
        (line_with(f'{{"class": "dog", "count": {10**20}}}'), f"include.1.count = {10**20}: "),
        (line_with('{"class": "dog", "count": "1"}'), "include.1.count = '1': "),
        (line_with('{"class": "dog", "count": 1, "color": "teal"}'), "include.1.color = 'teal': "),
        (line_with('{"class": "dog", "count": 1, "colour": "red"}'), "include.1.colour = 'red': Extra"),
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
            "include.1.position.1 = -1: ",
        ),
    ],
)
def test_a_bad_line_is_refused_in_one_line_that_names_the_problem(line: str, problem: str):
    with pytest.raises(InvalidRequest) as refusal:
        PromptMetadata.from_line(line)
    assert problem in str(refusal.value)
    assert "\n" not in str(refusal.value)
