import pytest

from forejudge.cli.stage_progress import StageProgress
from forejudge.progress import Progress


def test_a_log_file_is_told_the_note_and_the_time_left(capsys: pytest.CaptureFixture[str]) -> None:
    with StageProgress() as progress:
        progress.show(Progress("generator", 20, 100, 90.0, "loss 0.125"))
        progress.show(Progress("generator", 40, 100, 60.0, "loss 0.100"))
    assert capsys.readouterr().err == "generator: 20 of 100, loss 0.125, 1.5 min left\n"


def test_a_part_without_a_note_has_none(capsys: pytest.CaptureFixture[str]) -> None:
    with StageProgress() as progress:
        progress.show(Progress("budgets", 1, 3, 30.0))
    assert capsys.readouterr().err == "budgets: 1 of 3, 0.5 min left\n"
