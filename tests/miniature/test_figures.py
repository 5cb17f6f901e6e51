"""The miniature's test: figures from known outcomes, and a small run of the whole."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from forejudge.generators import load_generator
from forejudge.miniature.evaluation import Outcomes, work_digest
from forejudge.miniature.figures import SHIPPED, MiniatureTest, load_verifiers, with_controls
from forejudge.miniature.report import best_of_n_table, distance_closed_by, ranking_figures
from forejudge.miniature.splits import cases

CPU = torch.device("cpu")


@pytest.fixture
def outcomes() -> Outcomes:
    """60 cases, 2 seeds, 4 candidates; one verifier knows the truth, one its opposite."""
    correct = np.random.default_rng(0).random((60, 2, 4)) < 0.5
    truth = correct.astype(float)
    return Outcomes(
        descriptions=[case.description for case in cases("test", 10)],
        correct_CSN=correct,
        score_CSN={"knows": truth, "contrary": -truth},
        probability_CSN={"knows": truth, "contrary": 1 - truth},
    )


def test_the_table_has_a_row_for_each_n_and_chooser(outcomes: Outcomes) -> None:
    rows = {(row["n"], row["chosen_by"]): row for row in best_of_n_table(outcomes, "knows", [1, 4])}
    assert len(rows) == 6
    assert rows[4, "verifier"]["micro"] == rows[4, "perfect judge"]["micro"]
    assert rows[1, "verifier"] == {**rows[1, "random"], "chosen_by": "verifier"}
    assert rows[4, "random"]["micro"]["estimate"] == pytest.approx(outcomes.correct_CSN.mean(), abs=1e-4)
    assert rows[4, "verifier"]["micro"]["low"] < rows[4, "verifier"]["micro"]["estimate"]


def test_distance_closed_is_whole_for_a_verifier_that_knows(outcomes: Outcomes) -> None:
    assert distance_closed_by(outcomes, "knows", 4)["estimate"] == 1
    assert distance_closed_by(outcomes, "contrary", 4)["estimate"] < 0


def test_ranking_figures_of_knowing_and_of_the_contrary(outcomes: Outcomes) -> None:
    knows, contrary = ranking_figures(outcomes, "knows"), ranking_figures(outcomes, "contrary")
    assert (knows["auroc"], knows["pair_accuracy"]["estimate"], knows["expected_calibration_error"]) == (1, 1, 0)
    assert (contrary["auroc"], contrary["pair_accuracy"]["estimate"]) == (0, 0)
    assert contrary["expected_calibration_error"] == 1
    assert knows["ties"] > 0


def test_a_small_run_gives_json_and_goes_on_where_it_was_stopped(
    tiny_generator: Path, tiny_verifier: Path, tmp_path: Path
) -> None:
    generator = load_generator(str(tiny_generator), CPU, torch.float32)
    verifiers = with_controls(load_verifiers(str(tiny_verifier), [tiny_verifier], generator, CPU))
    seen: list[str] = []
    test = MiniatureTest(generator, verifiers, [1, 2], 1, 1, tmp_path, lambda stand: seen.append(stand.part))
    first = json.loads(json.dumps(test.figures()))
    assert first["test_cases"] == 6
    assert set(first["verifiers"]) == {SHIPPED, "verifier", "states shuffled", "states zeroed"}
    assert first["verifiers"]["verifier"] == first["verifiers"][SHIPPED]
    assert first["verifiers"]["states zeroed"]["ties"] == 1
    assert set(first["steps"]) == {"1", "2", "4", "8"}
    assert seen.count("evaluation") == 6
    seen.clear()
    assert test.figures()["best_of_n"] == first["best_of_n"]
    assert seen == []


def test_other_verifiers_or_cases_are_other_work(tiny_generator: Path, tiny_verifier: Path) -> None:
    generator = load_generator(str(tiny_generator), CPU, torch.float32)
    verifiers = load_verifiers(str(tiny_verifier), [], generator, CPU)
    digest = work_digest(generator, verifiers, cases("test", 1), 2)
    assert digest == work_digest(generator, load_verifiers(str(tiny_verifier), [], generator, CPU), cases("test", 1), 2)
    others = load_verifiers(str(tiny_verifier), [], generator, CPU)
    others[SHIPPED].digest = "of other weights"
    changed = [
        work_digest(generator, others, cases("test", 1), 2),
        work_digest(generator, {}, cases("test", 1), 2),
        work_digest(generator, verifiers, cases("test", 2), 2),
        work_digest(generator, verifiers, cases("test", 1), 3),
    ]
    assert len({digest, *changed}) == 5
