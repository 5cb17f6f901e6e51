"""A journal keeps whole entries, whatever happens between them."""

from pathlib import Path

from forejudge.journal import Journal


def test_entries_are_there_again(tmp_path: Path) -> None:
    Journal(tmp_path / "deep" / "a.jsonl").add({"x": [1, 2]})
    journal = Journal(tmp_path / "deep" / "a.jsonl")
    journal.add(False)
    assert Journal(journal.path).entries == [{"x": [1, 2]}, False]


def test_a_torn_last_line_is_cut_off_and_can_be_written_again(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('{"a": 1}\n{"a": 2')
    journal = Journal(path)
    assert journal.entries == [{"a": 1}]
    journal.add({"a": 2})
    assert path.read_text() == '{"a": 1}\n{"a": 2}\n'
