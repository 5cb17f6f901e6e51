"""Files of an evaluation with wrong values: each is named with its field, and with what to do."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from forejudge.candidates.evaluation_store import EvaluationStore
from forejudge.errors import CheckpointError
from forejudge.evaluation.report import EvaluationReport
from forejudge.evaluation.strategies import load_outcomes
from forejudge.evaluation.suite import folder_report
from forejudge.report.page import Contents
from forejudge.report.tables import ranking
from tests.support.folders import copy_folder
from tests.support.made_up_evaluation import COSTS, SETTINGS, fake_evaluation

Rows = list[dict[str, Any]]


@pytest.fixture(scope="module")
def made_up(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return fake_evaluation(tmp_path_factory.mktemp("made up") / "evaluation")


@pytest.fixture
def evaluation(made_up: Path, tmp_path: Path) -> Path:
    copy_folder(made_up, tmp_path / "evaluation")
    return tmp_path / "evaluation"


def change(path: Path, keys: tuple[str | int, ...], value: object) -> None:
    """Set one value of a JSON file."""
    content = json.loads(path.read_text())
    *parents, last = keys
    part = content
    for key in parents:
        part = part[key]
    part[last] = value
    path.write_text(json.dumps(content))


def without_first(rows: Rows) -> Rows:
    return rows[1:]


def last_twice(rows: Rows) -> Rows:
    return [*rows, rows[-1]]


def last_for_first(rows: Rows) -> Rows:
    return [*rows[1:], rows[-1]]


def with_value(field: str, value: object) -> Callable[[Rows], Rows]:
    return lambda rows: [rows[0] | {field: value}, *rows[1:]]


def with_verdict(score: float, probability: float | None) -> Callable[[Rows], Rows]:
    clip = {"score": 0.0, "probability": None}
    return with_value("verdicts", {"hidden": {"score": score, "probability": probability}, "clip": clip})


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        (without_first, "it has 7 rows, settings.json says 8"),
        (last_twice, "it has 9 rows, settings.json says 8"),
        (last_for_first, "it has a candidate twice"),
        (with_value("correct", None), "row 0.correct = None: Input should be a valid boolean"),
        (with_value("seed_index", -1), "row 0.seed_index = -1: "),
        (with_value("seed", 2**32), "row 0.seed = 4294967296: "),
        (with_value("sample", "../../0000.png"), "row 0.sample = "),
        (with_verdict(np.nan, 0.5), "row 0.verdicts.hidden.score = nan: a verdict without a score"),
        (with_verdict(0.5, 1.5), "row 0.verdicts.hidden.probability = 1.5: "),
        (lambda rows: [row | {"verdicts": {"other": row["verdicts"]["clip"]}} for row in rows],
         "verdicts are of other, settings.json says hidden, clip"),
        (lambda rows: [{"text": "x"} for _ in rows], "row 0.seed_index: Field required"),
    ],
)  # fmt: skip
def test_wrong_rows_are_named_with_what_to_do(evaluation: Path, changed: Callable[[Rows], Rows], said: str) -> None:
    store = EvaluationStore(evaluation)
    rows: Any = store.rows(3)
    store.write(3, changed(rows), {})
    with pytest.raises(CheckpointError) as refused:
        load_outcomes(EvaluationStore(evaluation))
    assert f"rows/00003.parquet is damaged ({said}" in str(refused.value)
    assert "00003.parquet and run the command that wrote it again" in str(refused.value)


@pytest.mark.parametrize("baseline", ["", "baselines/1-step/"])
@pytest.mark.parametrize(
    ("field", "value"), [("prompts", -6), ("prompts", 10**9), ("seeds", 0), ("candidates", 10**23), ("steps", "x")]
)
def test_wrong_numbers_in_the_settings_are_named(evaluation: Path, baseline: str, field: str, value: object) -> None:
    """At once, also where as many prompts would be looked for."""
    path = evaluation / f"{baseline}settings.json"
    change(path, (field,), value)
    with pytest.raises(CheckpointError, match=rf"settings\.json: {field} = "):
        folder_report(evaluation, ["1 step"], {}, [1], None, [])


@pytest.mark.parametrize(
    ("keys", "value", "field"),
    [
        (("costs", "searches", "hidden", "milliseconds", "1"), np.nan, "costs.searches.hidden.milliseconds.1"),
        (("costs", "searches", "hidden", "milliseconds"), {}, "costs.searches.hidden.milliseconds"),
        (("costs", "searches"), {}, "costs.searches"),
        (("costs", "baseline_ms", "1 step"), -1, "costs.baseline_ms.1 step"),
        (("best_of_n", 0, "micro", "estimate"), np.nan, "best_of_n.0.micro"),
        (("best_of_n", 0, "micro"), None, "best_of_n.0.micro"),
        (("best_of_n", 0, "n"), 0, "best_of_n.0.n"),
        (("equal_time", 0, "budget"), np.inf, "equal_time.0.budget"),
        (("verifiers", "clip", "oracle_gap_closed"), {}, "verifiers.clip.oracle_gap_closed"),
        (("verifiers", "clip", "oracle_gap_closed", "4", "high"), 1.5, "verifiers.clip.oracle_gap_closed.4"),
        (("verifiers", "clip", "auroc"), 1.5, "verifiers.clip.auroc"),
        (("verifiers", "clip", "pair_accuracy", "high"), 1.5, "verifiers.clip.pair_accuracy"),
        (("verifiers", "clip", "tie_rate"), 2, "verifiers.clip.tie_rate"),
        (("leads", 0, "lead", "p"), 0, "leads.0.lead"),
        (("equal_time", 1, "reference_lead", "estimate"), -1.5, "equal_time.1.reference_lead"),
        (("best_of_n", 0, "n"), 3, "best_of_n: expected a row for each strategy and N up to 4"),
        (("best_of_n", 0, "strategy"), "other", "best_of_n: expected a row for each strategy and N up to 4"),
        (("test_cases",), -1, "test_cases"),
    ],
)
def test_wrong_figures_are_named_with_what_to_do(
    evaluation: Path, keys: tuple[str | int, ...], value: object, field: str
) -> None:
    change(evaluation / "figures.json", keys, value)
    with pytest.raises(CheckpointError) as refused:
        Contents.read(evaluation)
    assert f"figures.json: {field}" in str(refused.value)
    assert "the same `forejudge eval` writes the report anew" in str(refused.value)


@pytest.mark.parametrize(
    ("keys", "value", "said"),
    [
        (("baseline_ms", "1 step"), np.nan, "baseline_ms.1 step"),
        (("searches", "hidden", "fixed_flops"), -1, "searches.hidden.fixed_flops = -1"),
        (("searches", "hidden", "rounds_ms"), {"1": [1.0]}, "expected as many rounds of each search and baseline"),
        (("baseline_rounds_ms",), {"1 step": [1.0]}, "expected as many rounds of each search and baseline"),
    ],
)
def test_wrong_costs_are_named_with_what_to_do(
    evaluation: Path, keys: tuple[str | int, ...], value: object, said: str
) -> None:
    change(evaluation / "costs.json", keys, value)
    with pytest.raises(CheckpointError) as refused:
        folder_report(evaluation, ["1 step"], {}, [1], None, [])
    assert said in str(refused.value)
    assert "delete the file, and the same eval measures costs anew" in str(refused.value)


@pytest.mark.parametrize("correct", [False, True])
def test_undefined_figures_are_written_read_and_shown_as_dashes(evaluation: Path, correct: bool) -> None:
    """No verifier can rank images that are all wrong or all right."""
    store = EvaluationStore(evaluation)
    for prompt in range(6):
        rows: Any = store.rows(prompt)
        store.write(prompt, [row | {"correct": correct} for row in rows], {})
    folder_report(evaluation, ["1 step"], {}, [1, 2], None, []).write(evaluation / "figures.json")
    report = Contents.read(evaluation).report
    assert np.isnan(report.verifiers["hidden"].pair_accuracy.estimate)
    (row, _) = ranking(report).rows
    assert [cell.text for cell in row[2:5]] == ["–", "–", "–"]


def test_a_report_without_rounds_of_its_timing_is_read(repository: Path) -> None:
    """As those that were written before rounds were kept."""
    report = EvaluationReport.read(repository / "benchmarks" / "miniature.json")
    assert report.test_cases == 600
    assert COSTS.rounds == 0
    assert SETTINGS.prompts == 6
