"""Recordings: a file holds what the folder holds, and what is no recording is named."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from forejudge.errors import CheckpointError, InvalidRequest
from forejudge.evaluation.policy_costs import POLICY_COSTS_FILE, BatchCosts, PolicyCosts
from forejudge.evaluation.strategies import Outcomes
from forejudge.simulation.recording import load_recording
from tests.support.made_up_evaluation import fake_evaluation
from tests.support.recordings import recording

COSTS = PolicyCosts(
    verifiers={"hidden": BatchCosts(batch_ms={1: 10, 2: 15}, finish_ms=20, second_step_ms=None, prior=None)},
    encode_ms=5,
)


def assert_same(found: Outcomes, expected: Outcomes) -> None:
    assert (list(found.prompts), list(found.tasks)) == (list(expected.prompts), list(expected.tasks))
    assert np.array_equal(found.correct_CSN, expected.correct_CSN)
    for one, other in (
        (found.score_CSN, expected.score_CSN),
        (found.probability_CSN, expected.probability_CSN),
        (found.second_correct_CSN, expected.second_correct_CSN),
    ):
        assert one.keys() == other.keys()
        assert all(np.array_equal(one[name], other[name]) for name in one)
    np.testing.assert_equal(dict(found.second_step_second_correct_CSN), dict(expected.second_step_second_correct_CSN))
    assert (found.second_step_correct_CSN is None) == (expected.second_step_correct_CSN is None)
    if found.second_step_correct_CSN is not None:
        np.testing.assert_array_equal(found.second_step_correct_CSN, expected.second_step_correct_CSN)


@pytest.mark.parametrize("second_step", [None, [[1, 1, 0], [0, np.nan, 1]]])
def test_a_file_holds_every_bit_of_a_recording(tmp_path: Path, second_step: list[list[float]] | None) -> None:
    written = recording([[0.1, 1 / 3, 0.9], [0.2, 0.3, 0.7]], [[0, 1, 1], [0, 0, 1]], second_step)
    if second_step is not None:
        held_out = {"held out": written.outcomes.correct_CSN}, {"held out": np.array(second_step)[:, None]}
        seen = replace(written.outcomes, second_correct_CSN=held_out[0], second_step_second_correct_CSN=held_out[1])
        written = replace(written, outcomes=seen)
    written.write(tmp_path / "verdicts.parquet")
    found = load_recording(tmp_path / "verdicts.parquet")
    assert found.header == written.header
    assert_same(found.outcomes, written.outcomes)


def test_a_folder_is_read_with_its_costs(tmp_path: Path) -> None:
    folder = fake_evaluation(tmp_path)
    COSTS.write(folder)
    found = load_recording(folder)
    assert found.verifiers == ["hidden"], "clip is not calibrated"
    assert found.header.flops["hidden"].candidate == 60 * 10**9
    assert found.outcomes.correct_CSN.shape == (6, 2, 4)
    found.write(tmp_path / "verdicts.parquet")
    assert_same(load_recording(tmp_path / "verdicts.parquet").outcomes, found.outcomes)


def test_a_folder_without_costs_of_batches_names_the_file(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=POLICY_COSTS_FILE):
        load_recording(fake_evaluation(tmp_path))


def test_what_is_no_recording_is_refused(tmp_path: Path) -> None:
    (tmp_path / "text.parquet").write_text("verdicts")
    with pytest.raises(CheckpointError, match=r"text\.parquet is no recording"):
        load_recording(tmp_path / "text.parquet")
    with pytest.raises(InvalidRequest, match="nothing is not there: expected a folder"):
        load_recording(tmp_path / "nothing")
