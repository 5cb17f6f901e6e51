import sys
from pathlib import Path

import pytest

from forejudge.report import page
from tests.support.command import CommandLine, refusal
from tests.support.folders import copy_folder
from tests.support.made_up_evaluation import fake_evaluation


@pytest.fixture(scope="module")
def fake_result(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return fake_evaluation(tmp_path_factory.mktemp("evaluations") / "made-up")


@pytest.fixture
def evaluation(forejudge: CommandLine, fake_result: Path) -> Path:
    """A finished evaluation in the working folder."""
    return copy_folder(fake_result, Path("evaluation"))


def test_the_page_lies_in_the_evaluations_folder(forejudge: CommandLine, evaluation: Path) -> None:
    outcome = forejudge("report", evaluation)
    assert (outcome.status, outcome.out, outcome.err) == (0, "written to evaluation/report.html\n", "")
    assert (evaluation / "report.html").is_file()


def test_the_page_lies_where_it_is_wanted(
    forejudge: CommandLine, evaluation: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(page, "write_report", lambda folder, out, study: out / study)
    assert forejudge("report", evaluation, "--out", "here", "--study", "layers").out == "written to here/layers\n"


def test_a_folder_that_is_no_evaluation(forejudge: CommandLine) -> None:
    Path("empty").mkdir()
    assert "empty/settings.json is missing" in refusal(forejudge("report", "empty"), status=1)


def test_an_evaluation_that_is_not_finished(forejudge: CommandLine, evaluation: Path) -> None:
    (evaluation / "rows" / "00003.parquet").unlink()
    assert "is incomplete, 1 of its 6 prompts are missing" in refusal(forejudge("report", evaluation), status=1)


def test_an_evaluation_without_figures(forejudge: CommandLine, evaluation: Path) -> None:
    (evaluation / "figures.json").unlink()
    assert "figures.json is missing" in refusal(forejudge("report", evaluation), status=1)


def test_figures_that_are_none(forejudge: CommandLine, evaluation: Path) -> None:
    (evaluation / "figures.json").write_text('{"provenance": {}}')
    assert "figures.json: settings: Field required" in refusal(forejudge("report", evaluation), status=1)


def test_a_study_that_is_not_there(forejudge: CommandLine, evaluation: Path) -> None:
    assert "study.json is missing" in refusal(forejudge("report", evaluation, "--study", "study.json"), status=1)


def test_without_matplotlib(forejudge: CommandLine, evaluation: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.startswith("forejudge.report")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    assert "pip install 'forejudge[plots]'" in refusal(forejudge("report", evaluation), status=1)
