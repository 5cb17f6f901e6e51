import time

import pytest

from forejudge.cli import progress
from forejudge.cli.progress import StageProgress
from forejudge.progress import Progress


def test_a_log_file_gets_the_note_and_the_time_left(capsys: pytest.CaptureFixture[str]) -> None:
    with StageProgress() as progress:
        progress.show(Progress("generator", 20, 100, 90.0, "loss 0.125"))
        progress.show(Progress("generator", 40, 100, 60.0, "loss 0.100"))
    assert capsys.readouterr().err == "generator: 20 of 100, loss 0.125, 1.5 min left\n"


def test_a_part_without_a_note_has_none(capsys: pytest.CaptureFixture[str]) -> None:
    with StageProgress() as progress:
        progress.show(Progress("budgets", 1, 3, 30.0))
    assert capsys.readouterr().err == "budgets: 1 of 3, 0.5 min left\n"


def test_a_log_file_gets_a_line_now_and_then(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = iter([0.0, 20.0, 40.0, 60.0, 80.0])
    monkeypatch.setattr(time, "monotonic", lambda: next(clock))
    with progress.progress_counter("images", 8) as advance:
        for _ in range(4):
            advance()
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err == "2 of 8 images, 2.0 min left\n4 of 8 images, 1.3 min left\n"


def test_nothing_else_is_written_without_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    with progress.spinner("loading"), progress.scoring_progress() as on_progress:
        on_progress(4, 8)
    said = capsys.readouterr()
    assert (said.out, said.err) == ("", "")


def test_a_terminal_gets_a_bar_that_goes_away(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm")
    with progress.scoring_progress() as on_progress:
        on_progress(4, 8)
    said = capsys.readouterr()
    assert said.out == ""
    assert "4/8" in said.err
    assert "\x1b[2K" in said.err, "the line is erased"
