from pathlib import Path

import pytest
from tests.cli.command import made_up

from forejudge.cli.tables import show_result, show_warnings


def shown(capsys: pytest.CaptureFixture[str], probabilities: list[float | None]) -> list[str]:
    show_result(made_up(probabilities, finished=[1]), Path("folder"))
    return capsys.readouterr().out.splitlines()


def test_a_row_for_each_candidate_and_the_winner_marked(capsys: pytest.CaptureFixture[str]) -> None:
    lines = shown(capsys, [0.25, 0.75])
    lost, won = (next(line for line in lines if f"{seed}" in line) for seed in (1000, 1001))
    assert lost.split() == ["0", "1000", "0.250", "0.250", "0.125", "+0.50", "no", "prefix(2", "blocks,", "step", "0)"]
    assert won.split() == [">", "1", "1001", "0.750", "0.250", "0.125", "+0.50", "yes", "image"]


def test_numbers_that_a_verifier_does_not_give_have_no_column(capsys: pytest.CaptureFixture[str]) -> None:
    lines = shown(capsys, [None, None])
    assert "score" in lines[2]
    assert "prob" not in lines[2]
    assert next(line for line in lines if "1001" in line).split() == [">", "1", "1001", "-1.000", "image"]


def test_stages_are_shown_in_milliseconds(capsys: pytest.CaptureFixture[str]) -> None:
    lines = [line.split() for line in shown(capsys, [0.25, 0.75])]
    assert ["encode", "1.0", "the", "prompt"] in lines
    assert ["decode", "2.5", "finished", "pictures:", "1"] in lines
    assert ["total", "250.0"] in lines


def test_warnings_go_to_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    show_warnings(["its verdicts may not hold [bold]"])
    said = capsys.readouterr()
    assert (said.out, said.err) == ("", "warning: its verdicts may not hold [bold]\n")
