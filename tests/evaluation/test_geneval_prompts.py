from collections import Counter
from pathlib import Path

import pytest

from forejudge.errors import InvalidRequest
from forejudge.evaluation.geneval_prompts import normalised_text, sample_prompts
from forejudge.evaluation.metadata import TASKS, PromptMetadata
from forejudge.evaluation.prompts_file import read_prompts

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
    return [normalised_text(metadata.prompt) for metadata in prompts]


def test_all_there_are_come_once() -> None:
    every = sample_prompts(OBJECTS, sum(EVERY_PROMPT.values()), seed=0)
    assert Counter(metadata.tag for metadata in every) == EVERY_PROMPT
    assert len(set(texts(every))) == len(every)
    assert [PromptMetadata.from_line(metadata.to_line()) for metadata in every] == every


def test_more_than_there_are_is_refused_with_how_many_there_are() -> None:
    excluded = ["A photo of a  cat."]
    with pytest.raises(InvalidRequest, match="243 prompts were asked for, but 3 objects give 241 "):
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
    left = sample_prompts(OBJECTS, 142, seed=0, excluded=excluded)
    assert not set(texts(left)) & {normalised_text(prompt) for prompt in excluded}


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
    with pytest.raises(InvalidRequest, match=f"2 objects give {of_all_tasks - 1} "):
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
    assert len(set(texts(prompts)) | set(map(normalised_text, benchmark))) == 6000 + 553
    counts = Counter(metadata.tag for metadata in prompts)
    assert counts["single_object"] == 0, "the benchmark holds all of them"
    assert all(counts[tag] > 100 for tag in TASKS if tag != "single_object")
