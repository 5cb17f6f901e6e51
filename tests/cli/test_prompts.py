from pathlib import Path

import pytest

from forejudge.miniature.prompts import TASKS_SHARING_PROMPTS, cases
from forejudge.prompts.geneval import TASKS, PromptMetadata, normalized_text
from forejudge.prompts.prompt_file import read_prompts
from tests.support.command import CommandLine, refusal

NAMES = "cat\nhot dog\n\norange\n"


@pytest.fixture
def geneval(forejudge: CommandLine) -> CommandLine:
    """`forejudge`, in a folder with objects.txt; arguments go on with those of `prompts geneval`."""
    Path("objects.txt").write_text(NAMES)
    return forejudge


def metadata_line(name: str) -> list[PromptMetadata]:
    return [line.geneval_metadata() for line in read_prompts(Path(name))]


def test_every_line_can_be_judged_and_the_counts_are_told(geneval: CommandLine) -> None:
    outcome = geneval("prompts", "geneval", "--objects", "objects.txt", "--count", "60", "--out", "new/train.jsonl")
    assert outcome.status == 0, outcome
    tags = [metadata.tag for metadata in metadata_line("new/train.jsonl")]
    assert len(tags) == 60
    told = ", ".join(f"{tags.count(tag)} {tag}" for tag in TASKS)
    assert outcome.out == f"60 prompts written to new/train.jsonl: {told}\n"


def test_prompts_of_every_excluded_file_stay_out(geneval: CommandLine) -> None:
    Path("some.txt").write_text("A photo of an Orange.\na photo of a cat\n")
    Path("more.json").write_text('[{"prompt": "a photo of  a hot dog"}]\n')
    arguments = ["prompts", "geneval", "--objects", "objects.txt", "--count", "100", "--out", "train.jsonl"]
    geneval(*arguments)
    held = {line.prompt for line in read_prompts(Path("train.jsonl"))}
    assert held >= {"a photo of an orange", "a photo of a cat", "a photo of a hot dog"}
    geneval(*arguments, "--exclude", "some.txt", "--exclude", "more.json")
    left = [metadata for metadata in metadata_line("train.jsonl") if metadata.tag == "single_object"]
    assert left == []
    assert len({normalized_text(metadata.prompt) for metadata in metadata_line("train.jsonl")}) == 100


@pytest.mark.parametrize(
    "command", [["geneval", "--objects", "objects.txt"], ["miniature", "--split", "training"]], ids=lambda c: c[0]
)
def test_the_seed_decides_on_the_file(geneval: CommandLine, command: list[str]) -> None:
    for name, seed in (("a", "7"), ("b", "7"), ("c", "8")):
        geneval("prompts", *command, "--count", "40", "--seed", seed, "--out", f"{name}.jsonl")
    a, b, c = (Path(f"{name}.jsonl").read_text() for name in "abc")
    assert a == b
    assert a != c


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--count", "100000"], "3 objects give only "),
        (["--count", "5", "--out", "train.txt"], "must end in .jsonl"),
        (["--count", "5", "--objects", "none.txt"], "none.txt cannot be read (No such file or directory)"),
        (["--count", "5", "--objects", "empty.txt"], "empty.txt holds no class name"),
        (["--count", "5", "--objects", "objects.json"], "objects.json is JSON: expected plain text"),
        (["--count", "5", "--exclude", "none.jsonl"], "none.jsonl cannot be read"),
    ],
)
def test_what_cannot_be_made_is_refused_and_nothing_written(
    geneval: CommandLine, arguments: list[str], said: str
) -> None:
    Path("empty.txt").write_text("\n")
    Path("objects.json").write_text('["cat", "dog"]')
    outcome = geneval("prompts", "geneval", "--objects", "objects.txt", "--out", "train.jsonl", *arguments)
    assert said in refusal(outcome, 2)
    assert not list(Path().glob("train.*"))


def test_a_count_out_of_range_is_a_usage_error(geneval: CommandLine) -> None:
    outcome = geneval("prompts", "geneval", "--objects", "objects.txt", "--out", "train.jsonl", "--count", "0")
    assert outcome.status == 2
    assert "Invalid value for '--count'" in outcome.err


@pytest.mark.parametrize("split", ["training", "validation"])
def test_miniature_prompts_are_none_of_the_test(forejudge: CommandLine, split: str) -> None:
    outcome = forejudge("prompts", "miniature", "--split", split, "--count", "400", "--out", "prompts.jsonl")
    assert outcome.out.startswith("400 prompts written to prompts.jsonl: ")
    made = metadata_line("prompts.jsonl")
    assert {metadata.tag for metadata in made} == set(TASKS)
    held_out = {case.description.prompt for case in cases("test")}
    assert not held_out & {metadata.prompt for metadata in made if metadata.tag not in TASKS_SHARING_PROMPTS}


def test_the_miniatures_test_is_no_split_to_draw_from(forejudge: CommandLine) -> None:
    outcome = forejudge("prompts", "miniature", "--split", "test", "--count", "4", "--out", "prompts.jsonl")
    assert outcome.status == 2
    assert "'test' is not one of" in outcome.err
