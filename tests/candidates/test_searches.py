"""Searches of many prompts: the layout of their folder, when an image is complete, and shards."""

from pathlib import Path
from typing import Any

import pytest

from forejudge.candidates.searches import SearchCollector, SearchConfig, SearchStore
from forejudge.errors import CheckpointError, InvalidRequest
from forejudge.options import ModelOptions, SearchOptions
from forejudge.progress import Progress, Shard
from forejudge.prompts.prompt_file import PromptLine
from forejudge.result import Result
from tests.support.command import fake_result
from tests.support.stand_in import REJECTED_PROMPT, SeedGenerator

LINES = [
    PromptLine("a red circle", '{"prompt": "a red circle"}', "prompts.txt, line 1"),
    PromptLine("a star", '{"prompt": "a star"}', "prompts.txt, line 2"),
]


class FakeBestOfN:
    """Finds the same result for every prompt, and notes what it was asked for."""

    def __init__(self, found: list[tuple[str, int]]) -> None:
        self.generator, self._found = SeedGenerator(), found

    def __call__(self, prompt: str, options: SearchOptions) -> Result:
        self._found.append((prompt, options.image_index))
        return fake_result([0.7], with_images=[0])


def search_collector(lines: list[PromptLine], found: list[tuple[str, int]]) -> SearchCollector:
    """Two images of each line. `found` takes the prompt and image index of each search."""

    best: Any = FakeBestOfN(found)
    search = SearchOptions()
    return SearchCollector(best, search, SearchConfig.from_options(ModelOptions(), search, 2), lines)


def test_images_are_ordered_by_prompt_then_image(tmp_path: Path) -> None:
    store = SearchStore(tmp_path, LINES, 2)
    found = [store.image_path(block).relative_to(tmp_path).as_posix() for block in range(store.blocks)]
    assert found == [f"{prompt:05}/samples/{image:04}.png" for prompt in (0, 1) for image in (0, 1)]


def test_an_image_is_complete_once_both_files_are_there(tmp_path: Path) -> None:
    store = SearchStore(tmp_path, LINES, 1)
    store.write(1, fake_result([0.7], with_images=[0]))
    assert store.missing == [0]
    assert store.record(1) == fake_result([0.7], with_images=[0]).record
    assert (tmp_path / "00001" / "metadata.jsonl").read_text() == '{"prompt": "a star"}\n'
    for missing in (store.image_path(1), store.record_path(1)):
        kept = missing.read_bytes()
        missing.unlink()
        assert not store.has(1)
        missing.write_bytes(kept)


def test_the_folder_of_another_prompt_is_refused(tmp_path: Path) -> None:
    SearchStore(tmp_path, LINES, 1).write(0, fake_result([0.7], with_images=[0]))
    SearchStore(tmp_path, LINES, 1).check_prompts(LINES)
    with pytest.raises(InvalidRequest, match=r"a red circle.*prompts\.txt, line 2 is .*a star"):
        SearchStore(tmp_path, LINES[1:], 1).check_prompts(LINES[1:])


def test_a_repeated_prompt_stands_for_its_next_images(tmp_path: Path) -> None:
    lines = [*LINES, LINES[0]]
    found: list[tuple[str, int]] = []
    search_collector(lines, found).run(SearchStore(tmp_path, lines, 2), Shard(), lambda progress: None)
    assert found[:2] + found[4:] == [("a red circle", index) for index in range(4)]
    assert (tmp_path / "00002/samples/0001.png").is_file()


def test_prompts_may_be_added_at_the_end_and_nothing_else_may_change(tmp_path: Path) -> None:
    found: list[tuple[str, int]] = []
    search_collector(LINES[:1], found).run(SearchStore(tmp_path, LINES[:1], 2), Shard(), lambda progress: None)
    assert SearchStore(tmp_path, LINES, 2).num_added(LINES) == 1
    search_collector(LINES, found).run(SearchStore(tmp_path, LINES, 2), Shard(), lambda progress: None)
    assert SearchStore(tmp_path, LINES, 2).num_added(LINES) == 0
    assert found[2:] == [("a star", 0), ("a star", 1)]
    for changed in (LINES[:1], LINES[1:], [LINES[0], LINES[0]]):
        with pytest.raises(InvalidRequest, match="begun with other prompts: 1 are gone, such as"):
            search_collector(changed, found).run(SearchStore(tmp_path, changed, 2), Shard(), lambda progress: None)


@pytest.mark.parametrize("content", [b"", b'{"win', b"null", b"[]", b"{}", b"\xff", b'{"winner": NaN}'])
def test_a_damaged_record_is_named(tmp_path: Path, content: bytes) -> None:
    store = SearchStore(tmp_path, LINES, 1)
    store.write(0, fake_result([0.7], with_images=[0]))
    store.record_path(0).write_bytes(content)
    with pytest.raises(CheckpointError, match=r"0000\.json: .*; delete .*0000\.json and run the command again"):
        store.record(0)


def test_shards_make_one_folder(tmp_path: Path) -> None:
    store = SearchStore(tmp_path, LINES, 2)
    found: list[tuple[str, int]] = []
    steps: list[Progress] = []
    search_collector(LINES, found).run(store, Shard(2, 2), steps.append)
    assert found == [("a red circle", 1), ("a star", 1)]
    assert store.missing == [0, 2]
    search_collector(LINES, found).run(store, Shard(), steps.append)
    assert found[2:] == [("a red circle", 0), ("a star", 0)]
    assert store.complete
    assert [(each.step, each.steps) for each in steps] == [(1, 2), (2, 2), (3, 4), (4, 4)]


def test_a_prompt_the_generator_refuses_is_named_before_anything_is_written(tmp_path: Path) -> None:
    lines = [*LINES, PromptLine(REJECTED_PROMPT, "{}", "prompts.txt, line 3")]
    with pytest.raises(InvalidRequest, match=r"prompts\.txt, line 3: the prompt has too many words"):
        search_collector(lines, []).run(SearchStore(tmp_path, lines, 2), Shard(), lambda progress: None)
    assert list(tmp_path.iterdir()) == []
