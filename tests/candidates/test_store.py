from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from forejudge.candidates.store import CandidateStore, CollectionConfig
from forejudge.errors import CheckpointError, InvalidRequest, OutputError

SETTINGS = CollectionConfig(
    generator="g", revision="r", observer_name="j", prompts="p", candidates=50, seed=0, recorded=("hidden:1",), rows=250
)


def rows_from(first: int, count: int, caption: str | None = None) -> list[dict[str, Any]]:
    return [{"index": index, "caption": caption} for index in range(first, first + count)]


@pytest.fixture
def folder(tmp_path: Path) -> CandidateStore:
    """A folder of three blocks, the last one shorter; none is written."""
    begun = CandidateStore(tmp_path / "rows")
    begun.begin(SETTINGS)
    return begun


def test_blocks_are_whole_prompts_and_about_128_rows() -> None:
    blocks = [SETTINGS.model_copy(update={"candidates": each}).rows_per_block for each in (1, 20, 50, 100, 200)]
    assert blocks == [128, 120, 100, 100, 200]
    assert [SETTINGS.rows_in(block) for block in range(SETTINGS.blocks)] == [100, 100, 50]


def test_rows_come_in_the_order_of_blocks_whenever_they_were_written(folder: CandidateStore) -> None:
    for block in (2, 0, 1):
        folder.write(block, rows_from(100 * block, SETTINGS.rows_in(block)), {})
    assert folder.complete
    assert folder.table()["index"].to_pylist() == list(range(250))


def test_a_column_that_is_empty_in_one_block_is_no_hindrance(folder: CandidateStore) -> None:
    for block, caption in enumerate([None, "a star", None]):
        folder.write(block, rows_from(0, SETTINGS.rows_in(block), caption), {})
    captions = folder.table()["caption"].to_pylist()
    assert captions == [None] * 100 + ["a star"] * 100 + [None] * 50


def test_states_of_a_row_are_found(folder: CandidateStore) -> None:
    hidden_NTD = torch.randn(100, 3, 2).half()
    folder.write(1, rows_from(100, 100), {"hidden:1": hidden_NTD})
    block, place = folder.block_of(142)
    assert torch.equal(load_file(folder.states_path(block))["hidden:1"][place], hidden_NTD[42])


def test_an_unfinished_folder_says_what_is_missing(folder: CandidateStore) -> None:
    folder.write(1, rows_from(100, 100), {})
    assert folder.missing == [0, 2]
    with pytest.raises(CheckpointError, match=r"2 of its 3 row blocks are missing: run the same command again"):
        folder.table()


def test_a_damaged_block_is_named(folder: CandidateStore) -> None:
    for block in range(3):
        folder.write(block, rows_from(0, SETTINGS.rows_in(block)), {})
    path = folder.rows_path(1)
    path.write_bytes(path.read_bytes()[:40])
    with pytest.raises(CheckpointError, match=r"00001\.parquet cannot be loaded"):
        folder.table()


@pytest.mark.parametrize(
    ("name", "value"), [("revision", "other"), ("candidates", 20), ("recorded", ("hidden:2",)), ("dtype", "bfloat16")]
)
def test_other_settings_are_refused_with_both_values(folder: CandidateStore, name: str, value: Any) -> None:
    other = SETTINGS.model_copy(update={name: value})
    with pytest.raises(InvalidRequest) as refused:
        CandidateStore(folder.path).begin(other)
    assert f"begun with {name} = {getattr(SETTINGS, name)}, this run has {name} = {value}:" in str(refused.value)


def test_the_same_settings_go_on(folder: CandidateStore) -> None:
    folder.write(0, rows_from(0, 100), {})
    again = CandidateStore(folder.path)
    again.begin(SETTINGS)
    assert again.has(0)
    assert not again.has(1)


def test_a_folder_that_was_never_begun_is_named(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"settings\.json is missing"):
        CandidateStore(tmp_path).table()


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match="cannot be written"):
        CandidateStore(tmp_path / "file").begin(SETTINGS)
