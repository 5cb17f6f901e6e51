import json
from pathlib import Path

import pytest

from forejudge.evaluation.bootstrap import Interval
from forejudge.report.page import Contents
from forejudge.report.tables import (
    Cell,
    best_of_n,
    competitors,
    costs,
    equal_cost,
    image_verifier,
    mean_cost,
    percent,
    ranking,
)
from tests.support.made_up_evaluation import COSTS, SETTINGS

NAMES = {name: f"no verifier, {name}" for name in ("1 step", "2 steps")}


def test_the_equal_time_table_says_what_the_figures_say(evaluation: Path, contents: Contents):
    rows = json.loads((evaluation / "figures.json").read_text())["equal_time"]
    table = equal_cost("At equal time", "ms", contents.report.equal_time, NAMES, task_intervals=True)
    assert len(table.rows) == len(rows)
    overall = table.headings.index("Overall")
    for cells, row in zip(table.rows, rows, strict=True):
        budget, _, n, *_ = (cell.text for cell in cells)
        assert [budget, n] == [f"{row['budget']:.0f}", str(row["n"])]
        assert cells[overall].text == f"{100 * row['micro']['estimate']:.1f}"
        assert cells[overall].detail == f"[{100 * row['micro']['low']:.1f}, {100 * row['micro']['high']:.1f}]"


def test_the_first_of_each_budget_is_what_the_others_are_compared_with(contents: Contents):
    table = equal_cost("At equal time", "ms", contents.report.equal_time, NAMES, task_intervals=True)
    firsts = [at for at, cells in enumerate(table.rows) if cells[1].text == "hidden"]
    assert table.groups == set(firsts)
    assert all((cells[-1].text == "–") == (at in table.groups) for at, cells in enumerate(table.rows))


def test_an_n_that_the_timing_leaves_open_has_its_interval(contents: Contents):
    row = contents.report.equal_time[0].model_copy(update={"n": 2})
    rows = [row.model_copy(update={"n_interval": interval}) for interval in (None, (2, 2), (1, 2))]
    assert [cells[2] for cells in equal_cost("", "ms", rows).rows] == [Cell("2"), Cell("2"), Cell("2", "[1, 2]")]


def test_competitors_are_listed_with_the_lead_over_them(contents: Contents):
    table = competitors("At the time of the others", "ms", contents.report.competitor_time, NAMES)
    assert "hidden: Best of" in table.headings
    assert [cells[0].text for cells in table.rows] == ["clip", "clip", "no verifier, 2 steps"]
    for cells, row in zip(table.rows, contents.report.competitor_time, strict=True):
        assert cells[1].text == str(row.n)
        assert cells[2].text == f"{row.cost:.0f}"
        assert cells[4] == Cell(str(row.reference_n))
        assert [cells[index] for index in (3, 5, 6)] == [
            percent(row.accuracy), percent(row.reference_accuracy), percent(row.lead)
        ]  # fmt: skip
        assert cells[7].text == f"{row.lead.p:.3f}"


def test_no_candidate_costs_less_than_nothing() -> None:
    search = COSTS.searches["hidden"].model_copy(update={"milliseconds": {1: 120.0, 2: 110.0, 4: 100.0}})
    (cells,) = costs(COSTS.model_copy(update={"searches": {"hidden": search}}), SETTINGS.reads).rows
    assert cells[1].text == "0.0"


def test_baselines_say_that_there_is_no_verifier_and_how_many_steps(contents: Contents):
    table = equal_cost("At equal time", "ms", contents.report.equal_time, NAMES)
    baselines = [cells[1].text for cells in table.rows if cells[1].text.startswith("no verifier")]
    assert set(baselines) == {"no verifier, 1 step", "no verifier, 2 steps"}


def test_tasks_without_cases_are_left_open(contents: Contents):
    table = equal_cost("At equal time", "ms", contents.report.equal_time, NAMES, task_intervals=True)
    counting, colors = (table.headings.index(name) for name in ("Counting", "Colors"))
    assert {cells[counting].text for cells in table.rows} == {"–"}
    assert "–" not in {cells[colors].text for cells in table.rows}


def test_best_of_n_has_a_column_for_each_n(contents: Contents):
    table = best_of_n("Quality against N", contents.report.best_of_n)
    assert table.headings == ["Strategy", "Best of 1", "Best of 2", "Best of 4"]
    assert [cells[0].text for cells in table.rows] == list(contents.report.by_strategy())


def test_ranking_leaves_the_calibration_of_an_uncalibrated_verifier_open(contents: Contents):
    table = ranking(contents.report)
    hidden, clip = table.rows
    calibration = table.headings.index("Calibration error")
    assert hidden[calibration].text == f"{contents.report.verifiers['hidden'].expected_calibration_error:.3f}"
    assert clip[calibration].text == "–"
    assert "Oracle gap closed at N = 4, %" in table.headings


def test_costs_are_compared_with_the_first_verifier_that_reads_images():
    assert image_verifier(COSTS, SETTINGS.reads) == "clip"
    hidden, clip = costs(COSTS, SETTINGS.reads).rows
    assert hidden[1:] == [Cell("10.0", "(-60 %)"), Cell("60.0", "(-50 %)"), Cell("15.0", "(-48 %)")]
    assert clip[1:] == [Cell("25.0", "(+0 %)"), Cell("120.0", "(+0 %)"), Cell("29.0", "(+0 %)")]


def test_costs_without_a_verifier_that_reads_images_stand_alone():
    alone = COSTS.model_copy(update={"searches": {"hidden": COSTS.searches["hidden"]}})
    assert image_verifier(alone, SETTINGS.reads) is None
    assert [cell.detail for cell in costs(alone, SETTINGS.reads).rows[0]] == ["", "", "", ""]


@pytest.mark.parametrize(
    ("figure", "cell"),
    [
        (Interval(estimate=-0.25, low=-1, high=0.5), Cell("-25.0", "[-100.0, 50.0]")),
        (Interval(estimate=float("nan"), low=0, high=0), Cell("–")),
        (None, Cell("–")),
    ],
)
def test_shares_in_per_cent(figure: Interval | None, cell: Cell):
    assert percent(figure) == cell


def test_strategies_at_equal_mean_time_have_their_lead_over_the_first(searched: Contents):
    rows = searched.report.equal_mean_time
    table = mean_cost("At equal mean time", "ms", rows, NAMES)
    lead, worse = table.headings.index("Lead"), table.headings.index("Worse on")
    assert [cells[2].text for cells in table.rows if cells[1].text == "hidden"] == [
        *["fixed", "until,batch_size=1"] * 2, "until=0.7,batch_size=1"
    ]  # fmt: skip
    for cells, row in zip(table.rows, rows, strict=True):
        is_first = (row.verifier, row.policy) == ("hidden", "fixed")
        assert cells[0].text == f"{row.cost:.1f}"
        assert cells[lead] == (Cell("–") if is_first else percent(row.lead))
        assert (cells[worse].text == "–") == all(each.high >= 0 for each in row.task_leads.values())
    baselines = {cells[1].text for cells in table.rows if "no verifier" in cells[1].text}
    assert baselines == {"no verifier, 2 steps"}, "one candidate costs 100 ms, and one step 90"
    behind = rows[1].task_leads["colors"].__class__(estimate=-0.2, low=-0.3, high=-0.1, p=0.01)
    shown = mean_cost("", "ms", [rows[0], rows[1].model_copy(update={"task_leads": {"colors": behind}})])
    assert shown.rows[1][worse] == Cell("Colors")
