import dataclasses
from pathlib import Path
from typing import Any

import pytest

from forejudge.cli.tables import (
    describe_stop,
    describe_winner,
    format_answer,
    format_probability,
    print_study,
    print_table,
    show_result,
    show_warnings,
)
from forejudge.report.tables import Cell, Table
from tests.support.command import fake_result
from tests.support.study_reports import interval, study_report


@pytest.fixture
def heading(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Any:
    """Print a study on a wide terminal and return its headings."""
    monkeypatch.setenv("COLUMNS", "250")

    def printed(**variants: dict[str, Any]) -> str:
        print_study(study_report(**variants))
        return next(line for line in capsys.readouterr().out.splitlines() if "Variant" in line)

    return printed


def test_a_study_shows_the_sizes_that_vary(heading: Any) -> None:
    assert "Parameters of the language model" in heading(small={}, large={"language_model_parameters": 1_234_567})
    assert "Best of 1" in heading(own={}, other={"best_of_1": interval(0.4)})


def test_a_study_hides_what_all_variants_share(heading: Any) -> None:
    columns = heading(one={"best_of_n": interval(0.7)}, other={})
    assert "Best of 8" in columns
    assert "AUROC" in columns  # alike, but by chance
    for common in ("hidden:2", "Parameters", "fingerprint", "Best of 1", "Oracle's"):
        assert common not in columns


def test_answer_follows_the_calibrated_probability() -> None:
    candidates = fake_result([0.5, 0.49, None], with_images=[0]).candidates
    assert [format_answer(candidate) for candidate in candidates] == ["yes", "no", ""]
    assert [format_probability(candidate) for candidate in candidates] == ["prob. 0.50", "prob. 0.49", "score -1.00"]


def test_outcome_says_when_no_candidate_passed() -> None:
    assert "No candidate passed" in describe_winner(fake_result([0.1, 0.4], with_images=[1]).record)
    assert "No candidate passed" not in describe_winner(fake_result([0.1, 0.6], with_images=[1]).record)
    assert "No candidate passed" not in describe_winner(fake_result([None], with_images=[0]).record)


@pytest.mark.parametrize(
    ("stopped_by", "said"), [("n", "All 3"), ("budget_ms", "--n 3"), ("until", "candidate 2"), ("price", "--n 3")]
)
def test_the_reason_for_stopping_is_described(stopped_by: str, said: str) -> None:
    record = fake_result([0.1, 0.2, 0.9], with_images=[2]).record.model_copy(
        update={"stopped_by": stopped_by, "unused": 5}
    )
    assert said in describe_stop(record)
    assert "5 candidates of the last batch" in describe_stop(record)


def shown(capsys: pytest.CaptureFixture[str], probabilities: list[float | None]) -> list[str]:
    show_result(fake_result(probabilities, with_images=[1]), Path("folder"))
    return capsys.readouterr().out.splitlines()


def test_a_row_for_each_candidate_and_the_winner_marked(capsys: pytest.CaptureFixture[str]) -> None:
    lines = shown(capsys, [0.25, 0.75])
    lost, won = (next(line for line in lines if f"{seed}" in line) for seed in (1000, 1001))
    assert lost.split() == ["0", "1000", "0.250", "0.250", "0.125", "+0.50", "no", "prefix(2", "blocks,", "step", "0)"]
    assert won.split() == [">", "1", "1001", "0.750", "0.250", "0.125", "+0.50", "yes", "image"]


def test_scores_that_a_verifier_lacks_have_no_column(capsys: pytest.CaptureFixture[str]) -> None:
    lines = shown(capsys, [None, None])
    assert "score" in lines[2]
    assert "prob" not in lines[2]
    assert next(line for line in lines if "1001" in line).split() == [">", "1", "1001", "-1.000", "image"]


def test_stages_are_shown_in_milliseconds(capsys: pytest.CaptureFixture[str]) -> None:
    lines = [line.split() for line in shown(capsys, [0.25, 0.75])]
    assert ["encode", "1.0", "prompt"] in lines
    assert ["decode", "2.5", "finished", "images:", "1"] in lines
    assert ["total", "250.0"] in lines


def test_warnings_go_to_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    show_warnings(["its verdicts may not hold [bold]"])
    said = capsys.readouterr()
    assert (said.out, said.err) == ("", "warning: its verdicts may not hold [bold]\n")


def test_prompts_and_names_are_shown_as_they_are(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    result = fake_result([0.5], with_images=[0])
    record = result.record.model_copy(update={"prompt": "[/red] :heart: \x1b[2J\u202eabc\ud83d"})
    show_result(dataclasses.replace(result, record=record), tmp_path)
    print_table(Table("a [/b] \x1b[0m", ["[/INST]"], [[Cell("[/b] :heart: \x1b[31m")]]))
    out = capsys.readouterr().out
    assert "[/red] :heart: \\u001b[2J\\u202eabc\\ud83d" in out
    assert "a [/b] \\u001b[0m" in out
    assert "[/INST]" in out
    assert "[/b] :heart:" in out
    assert "\x1b" not in out
