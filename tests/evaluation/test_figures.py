"""All figures of an evaluation, from outcomes that are known."""

import json

import pytest
from tests.evaluation.stand_in_outcomes import outcomes

from forejudge.evaluation.figures import evaluation_figures
from forejudge.evaluation.intervals import distance_closed_by, ranking_figures

DRAWN = outcomes()


def test_the_table_has_a_row_for_each_n_and_chooser() -> None:
    found = json.loads(json.dumps(evaluation_figures(DRAWN, [1, 4], [{"knows": 1, "contrary": 0.5}])))
    rows = {(row["n"], row["chosen_by"]): row for row in found["best_of_n"]}
    combined = ["mean rank of knows, contrary", "log-odds of knows, 0.5 contrary"]
    assert {name for _, name in rows} == {"knows", "contrary", "silent", "random", "perfect judge", *combined}
    assert rows[4, "knows"]["micro"] == rows[4, "perfect judge"]["micro"] == rows[4, combined[1]]["micro"]
    assert rows[1, "knows"] == {**rows[1, "random"], "chosen_by": "knows"}
    assert rows[4, "random"]["micro"]["estimate"] == pytest.approx(DRAWN.correct_CSN.mean(), abs=1e-4)
    assert rows[4, "knows"]["micro"]["low"] < rows[4, "knows"]["micro"]["estimate"]
    assert (found["test_cases"], found["distinct_prompts"], found["seeds"], found["candidates"]) == (60, 30, 2, 4)


def test_the_first_verifier_is_compared_with_every_other_chooser() -> None:
    differences = {(row["n"], row["other"]): row for row in evaluation_figures(DRAWN, [1, 4])["differences"]}
    assert set(differences) == {(4, name) for name in ("contrary", "silent", "random", "perfect judge")}
    assert differences[4, "perfect judge"]["p"] == 1
    assert differences[4, "random"]["p"] < 0.01
    assert differences[4, "random"]["estimate"] > 0


def test_distance_closed_is_whole_for_a_verifier_that_knows() -> None:
    assert distance_closed_by(DRAWN, ["knows"], 4)["estimate"] == 1
    assert distance_closed_by(DRAWN, ["contrary"], 4)["estimate"] < 0
    both = distance_closed_by(DRAWN, ["knows", "contrary"], 4)["estimate"]
    assert both == pytest.approx((1 + distance_closed_by(DRAWN, ["contrary"], 4)["estimate"]) / 2, abs=1e-3)


def test_ranking_figures_of_knowing_of_the_contrary_and_of_silence() -> None:
    knows, contrary, silent = (ranking_figures(DRAWN, name) for name in ("knows", "contrary", "silent"))
    assert (knows["auroc"], knows["pair_accuracy"]["estimate"], knows["expected_calibration_error"]) == (1, 1, 0)
    assert (contrary["auroc"], contrary["pair_accuracy"]["estimate"]) == (0, 0)
    assert contrary["expected_calibration_error"] == 1
    assert (silent["expected_calibration_error"], silent["ties"]) == (None, 1)
    assert 0 < knows["ties"] < 1
