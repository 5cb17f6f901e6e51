import os
import platform
from pathlib import Path
from threading import Thread
from uuid import UUID

import pytest

from forejudge.errors import InvalidRequest, OutputError
from forejudge.files import (
    Journal,
    atomic_folder,
    check_replaceable,
    check_writable,
    exists,
    is_dir,
    is_file,
    output_folder,
    prepare_folder,
    scratch_folder,
    write_bytes,
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
        write_text(path, "the other's")
        fsync(descriptor)

    monkeypatch.setattr("os.fsync", written_by_another)
    write_text(path, "ours")
    assert path.read_text() == "ours"
    assert list(tmp_path.iterdir()) == [path]


def test_a_folder_that_another_holds_is_refused(tmp_path: Path) -> None:
    def hold(refusals: list[str]) -> None:
        try:
            with output_folder(tmp_path / "work"):
                refusals.append("")
        except InvalidRequest as error:
            refusals.append(str(error))

    refusals: list[str] = []
    with output_folder(tmp_path / "work"), output_folder(tmp_path / "work"), output_folder(tmp_path / "work", 2, 2):
        thread = Thread(target=hold, args=[refusals])
        thread.start()
        thread.join()
    hold(refusals)
    assert "work is being written to by another process: wait for it, or choose another --out" in refusals[0]
    assert refusals[1:] == [""]
    assert list((tmp_path / "work").iterdir()) == [], "no lock is left"


def test_a_folder_is_prepared_once_however_often_it_is_held(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    prepared: list[Path] = []
    monkeypatch.setattr("forejudge.files.prepare_folder", prepared.append)
    with output_folder(tmp_path), output_folder(tmp_path):
        pass
    assert prepared == [tmp_path]


def test_a_path_that_no_file_can_be_written_to_is_refused_beforehand(tmp_path: Path) -> None:
    check_replaceable(tmp_path / "new" / "figures.json")
    assert list(tmp_path.iterdir()) == []
    for path in (tmp_path, Path(".."), Path("/dev/null")):
        with pytest.raises(OutputError, match="is a folder or a device, which is not replaced"):
            check_replaceable(path)


def test_links_are_written_through(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    for name in ("there", "absent"):
        (tmp_path / name).symlink_to(f"real/{name}")
    (tmp_path / "real" / "there").write_text("old")
    for name in ("there", "absent"):
        write_text(tmp_path / name, "new")
        assert (tmp_path / name).is_symlink()
        assert (tmp_path / "real" / name).read_text() == "new"
    assert len(list(tmp_path.rglob("*"))) == 5


def test_folders_and_devices_are_not_replaced(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to("pipe")
    for path in (tmp_path, tmp_path / "pipe", tmp_path / "link", Path("/dev/null"), Path()):
        for write in (lambda path: write_text(path, "text"), Journal):
            with pytest.raises(OutputError, match="is a folder or a device, which is not replaced"):
                write(path)
    assert (tmp_path / "pipe").is_fifo()


def test_a_link_in_the_way_of_a_temporary_file_is_not_followed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("forejudge.files.uuid4", lambda: UUID(int=0))
    temporary = f".forejudge-{platform.node()}-{os.getpid()}-{UUID(int=0).hex}.partial"
    (tmp_path / temporary).symlink_to("precious")
    (tmp_path / "precious").write_text("precious")
    with pytest.raises(OutputError, match="File exists"):
        write_text(tmp_path / "result.json", "text")
    assert (tmp_path / "precious").read_text() == "precious"


def test_a_name_as_long_as_the_system_allows_is_written(tmp_path: Path) -> None:
    write_text(tmp_path / ("x" * 255), "text")
    assert (tmp_path / ("x" * 255)).read_text() == "text"


def test_what_a_killed_process_left_is_cleared(tmp_path: Path) -> None:
    dead = "999999999"  # more than a process id can be
    ours, others = f".forejudge-{platform.node()}-", ".forejudge-another host-"
    kept = [tmp_path / f"{ours}{os.getpid()}-a.partial", tmp_path / f"{others}{dead}-a.partial", tmp_path / ".partial"]
    gone = [tmp_path / f"{ours}{dead}-a.partial", tmp_path / "00000" / "samples" / f"{ours}{dead}-b.partial"]
    (tmp_path / f"{ours}{dead}-folder.partial").mkdir()
    for path in (*kept, *gone, tmp_path / f"{ours}{dead}-folder.partial" / "weights"):
        write_text(path, "text")
    check_writable(tmp_path / "yet to come")
    assert sorted(path for path in tmp_path.iterdir() if path.is_file()) == sorted(kept)
    prepare_folder(tmp_path)
    assert sorted(path for path in tmp_path.rglob("*") if path.is_file()) == sorted(kept)


def test_a_full_disk_leaves_a_journal_that_continues(tmp_path: Path) -> None:
    if not Path("/dev/full").exists():
        pytest.skip("no /dev/full here")
    (tmp_path / "full").symlink_to("/dev/full")
    with pytest.raises(OutputError, match="full is a folder or a device"):
        Journal(tmp_path / "full")
    journal = Journal(tmp_path / "a.jsonl")
    journal.path = Path("/dev/full")
    with pytest.raises(OutputError, match="No space left on device"):
        journal.add({})


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


def test_a_folder_whose_name_is_no_text_is_refused(tmp_path: Path) -> None:
    with (
        pytest.raises(OutputError, match="is no text in UTF-8: choose another --out"),
        output_folder(tmp_path / "caf\udce9"),
    ):
        pass
    assert list(tmp_path.iterdir()) == []
