import json
import zlib
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import load_file

from forejudge.candidates.features import RecordedStates
from forejudge.candidates.store import SETTINGS_FILE, CandidateStore, CollectionConfig
from forejudge.errors import CheckpointError, InvalidRequest, OutputError
from forejudge.progress import Shard
from forejudge.prompts.prompt_file import PromptLine
from tests.support.stand_in import prompt_lines

SETTINGS = CollectionConfig(
    generator="g", revision="r", observer_name="j", prompts="p", candidates=50, seed=0, recorded=("hidden:1",), rows=250
)
STATES = {"hidden:1": torch.zeros(1, 1, 1)}


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
        folder.write(block, rows_from(100 * block, SETTINGS.rows_in(block)), STATES)
    assert folder.complete
    assert folder.table()["index"].to_pylist() == list(range(250))


def test_a_column_that_is_empty_in_one_block_is_no_hindrance(folder: CandidateStore) -> None:
    for block, caption in enumerate([None, "a star", None]):
        folder.write(block, rows_from(0, SETTINGS.rows_in(block), caption), STATES)
    captions = folder.table()["caption"].to_pylist()
    assert captions == [None] * 100 + ["a star"] * 100 + [None] * 50


def test_states_of_a_row_are_found(folder: CandidateStore) -> None:
    hidden_NTD = torch.randn(100, 3, 2).half()
    folder.write(1, rows_from(100, 100), {"hidden:1": hidden_NTD})
    block, place = folder.block_of(142)
    assert torch.equal(load_file(folder.states_path(block))["hidden:1"][place], hidden_NTD[42])


def test_grids_that_are_no_square_are_recorded(folder: CandidateStore) -> None:
    states = {name: torch.zeros(100, 6, 2).half() for name in ("hidden:1", "latent", "clip")}
    folder.write(0, rows_from(0, 100), states, {"hidden:1": (2, 3), "latent": (4, 4), "clip": None})
    folder.write(1, rows_from(100, 100), states)
    assert [folder.recorded_grids(block) for block in (0, 1)] == [{"hidden:1": (2, 3)}, {}]


def test_without_states_there_is_no_file_of_them(folder: CandidateStore) -> None:
    folder.write(0, rows_from(0, 100), {})
    assert folder.rows_path(0).exists()
    assert not folder.states_path(0).exists()


def test_only_fields_without_values_are_left_out(folder: CandidateStore) -> None:
    folder.write(0, [row | {"verdicts": {"clip": 1.0}, "nothing": {}} for row in rows_from(0, 100)], STATES)
    assert folder.block_table(0).column_names == ["index", "caption", "verdicts"]


def test_a_locked_shard_is_named_in_its_folder(folder: CandidateStore) -> None:
    with folder.lock(Shard(2, 3)):
        assert (folder.path / ".2-of-3.lock").exists()


def test_images_of_a_prompt_have_their_folder(folder: CandidateStore) -> None:
    assert folder.images(3).path == folder.path / "00003"


def test_an_unfinished_folder_says_what_is_missing(folder: CandidateStore) -> None:
    folder.write(1, rows_from(100, 100), STATES)
    assert folder.missing == [0, 2]
    with pytest.raises(CheckpointError, match=r"2 of its 3 row blocks are missing: run the same command again"):
        folder.table()


@pytest.fixture
def whole(folder: CandidateStore) -> CandidateStore:
    """The folder with all its rows and states."""
    for block in range(3):
        count = SETTINGS.rows_in(block)
        folder.write(block, rows_from(100 * block, count), {"hidden:1": torch.randn(count, 3, 2).half()})
    return folder


def damaged(content: bytes, damage: str) -> bytes:
    if damage in ("early", "middle", "late"):
        place = {"early": 6, "middle": len(content) // 2, "late": len(content) - 12}[damage]
        return content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :]
    return {"empty": b"", "half": content[: len(content) // 2], "short": content[:-1], "noise": bytes(range(99))}[
        damage
    ]


DAMAGES = ("early", "middle", "late", "empty", "half", "short", "noise")


@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged_rows_are_named_with_what_to_do(whole: CandidateStore, damage: str) -> None:
    path = whole.rows_path(1)
    path.write_bytes(damaged(path.read_bytes(), damage))
    with pytest.raises(
        CheckpointError, match=r"rows/00001\.parquet is damaged .*: delete .*rows/00001\.parquet and run"
    ):
        whole.table()


@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged_states_are_named_with_what_to_do(whole: CandidateStore, damage: str) -> None:
    path = whole.states_path(1)
    path.write_bytes(damaged(path.read_bytes(), damage))
    states = RecordedStates(whole, "hidden:1")
    assert states.tokens([99]).shape == (1, 3, 2)
    with pytest.raises(
        CheckpointError, match=r"states/00001\.safetensors is damaged .*: delete .*rows/00001\.parquet and run"
    ):
        states.tokens([0, 100])


def test_checksums_are_those_of_the_files(whole: CandidateStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """However many bytes are read at once."""
    recorded = json.loads((whole.path / "checksums" / "00001.json").read_text())
    files = {"rows": whole.rows_path(1), "states": whole.states_path(1)}
    assert recorded == {name: f"{zlib.crc32(path.read_bytes()):08x}" for name, path in files.items()}
    monkeypatch.setattr("forejudge.candidates.store._BYTES_AT_ONCE", 1000)
    whole.check_states(1)


def test_a_block_without_its_states_is_missing(whole: CandidateStore) -> None:
    whole.states_path(1).unlink()
    assert whole.missing == [1]
    with pytest.raises(CheckpointError, match="1 of its 3 row blocks are missing: run the same command again"):
        whole.table()


def test_rows_carry_checksums_of_their_pages_too(whole: CandidateStore) -> None:
    """Other readers of Parquet compare them."""
    path = whole.rows_path(1)
    content = path.read_bytes()
    offset = pq.ParquetFile(path).metadata.row_group(0).column(0).dictionary_page_offset + 60
    path.write_bytes(content[:offset] + bytes([content[offset] ^ 1]) + content[offset + 1 :])
    with pytest.raises(OSError, match="CRC"):
        pq.ParquetFile(path, page_checksum_verification=True).read()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"candidates": 10**23}, "candidates = 1"),
        ({"candidates": -50}, "candidates = -50"),
        ({"candidates": 125}, r"rows/00000\.parquet is damaged \(it has 100 rows, settings\.json says 125\)"),
        ({"candidates": 60}, "rows = 250 are no multiple of candidates = 60"),
        ({"rows": 10**23}, "rows = 1"),
        ({"rows": float("nan")}, "rows"),
        ({"seed": 10**23}, "seed = 1"),
        ({"seed": -1}, "seed = -1"),
    ],
)
def test_wrong_numbers_in_the_settings_are_named(whole: CandidateStore, change: dict[str, float], said: str) -> None:
    path = whole.path / SETTINGS_FILE
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(CheckpointError, match=said):
        CandidateStore(whole.path).table()


THREE = prompt_lines("a star", "a disc", "a ring")


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        (THREE[1:], '1 are gone, such as {"tag": "counting", "prompt": "a star"}; choose'),
        ([*THREE, THREE[2]], "1 are new, such as prompts.jsonl, line 3: {"),
        (prompt_lines("a star", "a moon", "a ring"), 'prompt": "a disc"}; 1 are new, such as prompts.jsonl, line 2: {'),
        (THREE[::-1], "begun with other prompts: the order is another; choose another --out"),
    ],
    ids=["first line gone", "last line twice", "one changed", "reversed"],
)
def test_changed_prompts_are_refused_and_named(folder: CandidateStore, changed: list[PromptLine], said: str) -> None:
    folder.record_prompts(THREE)
    folder.record_prompts(THREE)
    with pytest.raises(InvalidRequest) as refused:
        CandidateStore(folder.path).check_prompts(changed)
    assert said in str(refused.value)
    with pytest.raises(InvalidRequest):
        folder.record_prompts(changed)


def test_prompts_may_follow_where_a_folder_may_grow(folder: CandidateStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(CandidateStore, "may_grow", True)
    assert folder.num_added(THREE) == 0
    folder.record_prompts(THREE[:2])
    assert folder.num_added(THREE) == 1
    folder.record_prompts(THREE)
    assert folder.recorded_prompts == [line.metadata for line in THREE]
    assert folder.num_added(THREE) == 0


def test_a_damaged_list_of_prompts_is_named(folder: CandidateStore) -> None:
    (folder.path / "prompts.jsonl").write_bytes(b"\xff\n")
    with pytest.raises(CheckpointError, match=r"prompts\.jsonl cannot be read .*: delete it"):
        folder.check_prompts(THREE)


@pytest.mark.parametrize(
    ("name", "value"), [("revision", "other"), ("candidates", 20), ("recorded", ("hidden:2",)), ("dtype", "bfloat16")]
)
def test_other_settings_are_refused_with_both_values(folder: CandidateStore, name: str, value: Any) -> None:
    other = SETTINGS.model_copy(update={name: value})
    with pytest.raises(InvalidRequest) as refused:
        CandidateStore(folder.path).begin(other)
    with pytest.raises(InvalidRequest, match="begun with"):
        folder.refuse_other(other)
    assert f"begun with {name} = {getattr(SETTINGS, name)}, this run has {name} = {value}:" in str(refused.value)


def test_the_same_settings_go_on(folder: CandidateStore) -> None:
    folder.write(0, rows_from(0, 100), STATES)
    again = CandidateStore(folder.path)
    again.begin(SETTINGS)
    again.refuse_other(SETTINGS)
    assert again.has(0)
    assert not again.has(1)


def test_a_folder_that_was_never_begun_is_named(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"settings\.json is missing"):
        CandidateStore(tmp_path).table()


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match="cannot be written"):
        CandidateStore(tmp_path / "file").begin(SETTINGS)
