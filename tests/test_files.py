import os
from pathlib import Path

import pytest

from forejudge.errors import InvalidRequest, OutputError
from forejudge.files import (
    Journal,
    atomic_folder,
    check_writable,
    exclusive_lock,
    exists,
    is_dir,
    is_file,
    prepare_folder,
    scratch_folder,
    write_bytes,
    write_shared_text,
    write_text,
)


def test_entries_are_there_again(tmp_path: Path) -> None:
    Journal(tmp_path / "deep" / "a.jsonl").add({"x": [1, 2]})
    journal = Journal(tmp_path / "deep" / "a.jsonl")
    journal.add(False)
    assert journal.path.read_text() == '{"x": [1, 2]}\nfalse\n'


def test_a_torn_last_line_is_cut_off_and_can_be_written_again(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('{"a": 1}\n{"a": 2')
    journal = Journal(path)
    journal.add({"a": 2})
    assert path.read_text() == '{"a": 1}\n{"a": 2}\n'


def test_a_write_that_fails_leaves_the_file_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "result.json"
    write_text(path, "first")

    def full(*arguments: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OutputError, match=r"result\.json cannot be written \(No space left on device\)"):
        write_text(path, "second")
    assert path.read_text() == "first"
    assert list(tmp_path.iterdir()) == [path], "no part of the second is left"


def test_a_file_brings_its_folder(tmp_path: Path) -> None:
    write_bytes(tmp_path / "a" / "b" / "c", b"content")
    assert (tmp_path / "a" / "b" / "c").read_bytes() == b"content"


def test_preparing_a_folder_leaves_nothing_in_it(tmp_path: Path) -> None:
    prepare_folder(tmp_path / "new" / "folder")
    assert list((tmp_path / "new" / "folder").iterdir()) == []


def test_a_trial_lies_beside_a_folder_that_is_yet_to_come(tmp_path: Path) -> None:
    with scratch_folder(tmp_path / "new" / "folder") as trial:
        write_text(trial / "file", "text")
        assert trial.parent == tmp_path
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_written_to_is_named_beforehand(tmp_path: Path) -> None:
    check_writable(tmp_path / "new")
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match=r"file/folder cannot be written \(Not a directory\)"):
        check_writable(tmp_path / "file" / "folder")


def test_a_file_in_the_place_of_a_folder_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match="file cannot be written"):
        prepare_folder(tmp_path / "file")
    with pytest.raises(OutputError, match="inside cannot be written"):
        write_text(tmp_path / "file" / "inside", "text")


def test_two_that_write_one_file_at_once_do_not_meet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, fsync = tmp_path / "settings.json", os.fsync

    def written_by_another(descriptor: int) -> None:
        monkeypatch.setattr("os.fsync", fsync)
        write_shared_text(path, "the other's")
        fsync(descriptor)

    monkeypatch.setattr("os.fsync", written_by_another)
    write_shared_text(path, "ours")
    assert path.read_text() == "ours"
    assert list(tmp_path.iterdir()) == [path]


def test_work_that_another_process_is_at_is_refused(tmp_path: Path) -> None:
    lock = tmp_path / "work" / "lock"
    refused = pytest.raises(InvalidRequest, match="being written to by another process")
    with exclusive_lock(lock), refused, exclusive_lock(lock):
        raise AssertionError("both hold it")
    with exclusive_lock(lock):
        pass


def test_a_folder_is_there_whole_or_not_at_all(tmp_path: Path) -> None:
    with atomic_folder(tmp_path / "deep" / "model") as part:
        (part / "weights").touch()
        assert not (tmp_path / "deep" / "model").exists()
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["model"]
    assert (tmp_path / "deep" / "model" / "weights").exists()
    with pytest.raises(ValueError, match="torn"), atomic_folder(tmp_path / "other"):
        raise ValueError("torn")
    assert [path.name for path in tmp_path.iterdir()] == ["deep"]


def test_a_folder_that_holds_something_is_not_replaced(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with atomic_folder(tmp_path / "empty") as part:
        (part / "weights").touch()
    with pytest.raises(InvalidRequest, match="empty exists already"), atomic_folder(tmp_path / "empty"):
        raise AssertionError("nothing is made")


@pytest.mark.parametrize("name", ["x" * 5000, "x" * 300 + "/" * 4000, "a\0b", "file/inside", "loop", "nothing", ""])
def test_a_text_that_names_nothing_is_no_path(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("file").touch()
    Path("loop").symlink_to("loop")
    assert (exists(name), is_file(name), is_dir(name)) == (False, False, False)
    assert (exists("file"), is_file("file"), is_dir("file"), is_dir(tmp_path)) == (True, True, False, True)


def test_a_path_in_a_locked_folder_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def locked(path: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("os.stat", locked)
    with pytest.raises(InvalidRequest, match=r"model cannot be opened \(Permission denied\): change its permissions"):
        is_dir("model")
