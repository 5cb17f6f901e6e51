import html
import json
import re
from dataclasses import replace
from pathlib import Path

import pytest

from forejudge.errors import CheckpointError
from forejudge.evaluation.report import ProjectedCosts
from forejudge.report.page import Contents, make_plots, render, write_report
from forejudge.report.plots import RenderedPlot
from tests.support.folders import copy_folder
from tests.support.study_reports import study_report


@pytest.fixture(scope="module")
def out(evaluation: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a report with a study of layers."""
    folder = tmp_path_factory.mktemp("report")
    study_report(four={"reads": "hidden:4"}, twelve={"reads": "hidden:12"}).write(folder / "study.json")
    return write_report(evaluation, folder / "out", folder / "study.json").parent


@pytest.fixture(scope="module")
def page(out: Path) -> str:
    return (out / "report.html").read_text(encoding="utf-8")


def test_the_page_needs_nothing_from_elsewhere(page: str):
    assert not re.search(r"https?://|<script|<link|@import|url\(", page)
    assert all(source.startswith("data:") for source in re.findall(r'(?:src|srcset|href)="([^"]*)"', page))


def test_the_page_names_what_was_tested(page: str):
    for name in ("hidden", "clip", "log-odds of hidden, clip", "random", "oracle", "six prompts", "coin", "abc"):
        assert name in page
    assert "6 cases, 2 seeds" in page


def test_names_are_not_taken_for_tags(page: str):
    assert "tiny <1>" not in page
    assert r"tiny <1>\u202e" in html.unescape(page)


def test_no_character_reorders_the_page(page: str):
    assert "\u202e" not in page


def test_sections_come_in_order(page: str):
    assert re.findall(r"<h2>(.*?)</h2>", page) == [
        "At equal time",
        "At the time of the others",
        "Quality against time",
        "Quality against N",
        "Calibration",
        "Ranking",
        "Costs",
        "Quality by layer",
        "Gallery",
    ]


def test_figures_of_the_page_are_those_of_the_file(page: str, evaluation: Path):
    metrics = json.loads((evaluation / "figures.json").read_text())
    for row in metrics["best_of_n"]:
        assert f"{100 * row['micro']['estimate']:.1f}" in page
    assert f"{metrics['verifiers']['clip']['auroc']:.3f}" in page


def test_every_image_has_a_description(page: str):
    images = re.findall(r"<img [^>]*>", page)
    assert len(images) == 4 + 4 * 4  # plots, then four prompts with four candidates
    assert all(re.search(r'alt="[^"]+"', image) for image in images)


def test_each_prompt_has_its_winner_marked(page: str):
    galleries = re.findall(r'<ul class="candidates">(.*?)</ul>', page, flags=re.DOTALL)
    assert [gallery.count("<b>winner</b>") for gallery in galleries] == [1, 1, 1, 1]
    assert [gallery.count('class="winner') for gallery in galleries] == [1, 1, 1, 1]


def test_plots_lie_beside_the_page(out: Path):
    names = ("quality-against-time", "quality-against-n", "calibration", "quality-by-layer")
    assert {path.name for path in out.iterdir()} == {
        "report.html",
        *(f"{name}.{kind}" for name in names for kind in ("png", "svg")),
    }


def test_projected_costs_are_headed_as_another_models(contents: Contents):
    projected = ProjectedCosts(generator="SANA-Sprint 1.6B", equal_cost=contents.report.equal_time, stage_flops={})
    report = contents.report.model_copy(update={"projected": projected})
    rendered = [RenderedPlot(name, name, b"", b"", b"") for name in ("quality-against-time", "quality-against-n")]
    page = render(replace(contents, report=report), rendered)
    assert "Budget, TFLOP" in page
    assert "says nothing about the accuracy of SANA-Sprint 1.6B" in page
    assert "Calibration</h2>" not in page
    assert "Quality by layer" not in page


def test_searches_at_equal_mean_time_have_their_plot_and_table(searched: Contents):
    names = [plot.name for plot in make_plots(searched)]
    assert "quality-against-mean-time" in names
    page = render(searched, [RenderedPlot(name, f"alt of {name}", b"", b"", b"") for name in names])
    assert "<h2>At equal mean time</h2>" in page
    assert "alt of quality-against-mean-time" in page
    assert page.count("until=0.7,batch_size=1") == 1


def test_best_of_n_of_each_strategy_with_n_rising(contents: Contents):
    by_strategy = contents.report.by_strategy()
    assert list(by_strategy)[:2] == ["hidden", "clip"]
    assert list(by_strategy)[-2:] == ["random", "oracle"]
    assert all([row.n for row in rows] == [1, 2, 4] for rows in by_strategy.values())


def test_figures_of_other_settings_are_refused(evaluation: Path, tmp_path: Path):
    folder = copy_folder(evaluation, tmp_path / "copy")
    settings = json.loads((folder / "settings.json").read_text())
    (folder / "settings.json").write_text(json.dumps(settings | {"evaluator": "dice"}))
    with pytest.raises(CheckpointError, match="is of another evaluation"):
        Contents.read(folder)
