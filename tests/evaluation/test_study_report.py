"""The report of a study, and its order by blocks."""

import json
from pathlib import Path
from typing import Any

import pytest

from forejudge.errors import CheckpointError
from forejudge.evaluation.study_report import StudyReport
from tests.support.study_reports import study_report


def test_a_report_is_read_as_written(tmp_path: Path) -> None:
    report = study_report(one={}, other={"best_of_1": None})
    report.write(tmp_path / "study.json")
    assert StudyReport.read(tmp_path / "study.json") == report


def test_layers_come_with_blocks_rising() -> None:
    report = study_report(**{reads: {"reads": reads} for reads in ("hidden:12", "latent", "hidden:4")})
    assert [blocks for blocks, _ in report.by_blocks()] == [4, 12]


@pytest.mark.parametrize(("text", "complaint"), [("{", "Invalid JSON"), ("{}", "provenance: Field required")])
def test_a_file_that_holds_no_study_is_refused(text: str, complaint: str, tmp_path: Path) -> None:
    path = tmp_path / "study.json"
    path.write_text(text)
    with pytest.raises(CheckpointError, match=complaint):
        StudyReport.read(path)


@pytest.mark.parametrize(
    ("change", "complaint"),
    [({"n": -8}, "n = -8: Input should be greater than 0"), ({"variants": {"one": {"auroc": -0.8}}}, "auroc = -0.8: ")],
)
def test_figures_that_cannot_be_are_refused(change: dict[str, Any], complaint: str, tmp_path: Path) -> None:
    path, report = tmp_path / "study.json", study_report(one={}).model_dump(mode="json")
    for name, fields in change.pop("variants", {}).items():
        report["variants"][name] |= fields
    path.write_text(json.dumps(report | change))
    with pytest.raises(CheckpointError, match=complaint):
        StudyReport.read(path)
