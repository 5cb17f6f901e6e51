"""Every metric against a plain loop over cases, candidates and pairs."""

import itertools

import numpy as np
import pytest

from forejudge.errors import InvalidRequest
from forejudge.evaluation.metrics import (
    BoolArray,
    FloatArray,
    area_under_roc,
    best_of_n,
    calibration_bins,
    expected_calibration_error,
    oracle_choice,
    oracle_gap_closed,
    pair_wins,
    random_choice,
)


@pytest.fixture
def candidates() -> tuple[BoolArray, FloatArray]:
    """40 cases of 8 candidates; scores on a coarse grid, so that many tie."""
    generator = np.random.default_rng(0)
    correct = generator.random((40, 8)) < generator.random((40, 1))
    return correct, np.round(generator.normal(size=(40, 8)) + correct, 0)


def pair_points(a: float, b: float) -> float:
    return 1.0 if a > b else 0.5 if a == b else 0.0


@pytest.mark.parametrize("n", [1, 3, 8])
def test_outcomes_equal_a_loop(candidates: tuple[BoolArray, FloatArray], n: int):
    correct, score = candidates
    for case in range(len(correct)):
        labels, scores = correct[case, :n].tolist(), score[case, :n].tolist()
        chosen = scores.index(max(scores))
        assert best_of_n(correct, score, n)[case] == labels[chosen]
        assert random_choice(correct, n)[case] == pytest.approx(sum(labels) / n)
        assert oracle_choice(correct, n)[case] == (True in labels)


def test_of_equal_scores_the_first_is_chosen():
    correct = np.array([[False, True, False, True]])
    score = np.array([[0.1, 0.9, 0.9, 0.9]])
    assert best_of_n(correct, score, 4) == [1.0]
    assert best_of_n(~correct, score, 4) == [0.0]


def test_a_later_candidate_is_not_seen_by_a_smaller_n():
    correct, score = np.array([[False, True]]), np.array([[0.0, 1.0]])
    assert best_of_n(correct, score, 1) == oracle_choice(correct, 1) == random_choice(correct, 1) == 0


@pytest.mark.parametrize("n", [0, -1, 9])
def test_more_candidates_than_there_are_is_refused(candidates: tuple[BoolArray, FloatArray], n: int):
    with pytest.raises(InvalidRequest, match=f"Best-of-{n} of 8 candidates"):
        best_of_n(*candidates, n)


def test_a_score_that_is_not_a_number_never_wins_silently():
    with pytest.raises(AssertionError):
        best_of_n(np.array([[True, False]]), np.array([[0.0, np.nan]]), 2)


def test_oracle_gap_closed():
    assert oracle_gap_closed(0.7, 0.6, 0.8) == pytest.approx(0.5)
    closed = oracle_gap_closed([0.6, 0.8, 0.5, 0.9], [0.6, 0.6, 0.6, 0.9], [0.8, 0.8, 0.8, 0.9])
    assert closed == pytest.approx([0.0, 1.0, -0.5, np.nan], nan_ok=True)


def test_pair_accuracy_equals_a_loop_over_pairs_within_cases(
    candidates: tuple[BoolArray, FloatArray],
):
    correct, score = candidates
    points = [
        [pair_points(s[i], s[j]) for i, j in itertools.permutations(range(8), 2) if c[i] > c[j]]
        for c, s in zip(correct.tolist(), score.tolist(), strict=True)
    ]
    wins, pairs = pair_wins(correct, score)
    assert wins.tolist() == [sum(of_case) for of_case in points]
    assert pairs.tolist() == [len(of_case) for of_case in points]
    assert wins.sum() / pairs.sum() == pytest.approx(np.mean(np.concatenate(points)))


def test_pairs_across_cases_are_not_compared():
    correct = np.array([[True, False], [True, False]])
    score = np.array([[1.0, 0.0], [101.0, 100.0]])
    wins, pairs = pair_wins(correct, score)
    assert wins.sum() / pairs.sum() == 1.0
    assert area_under_roc(correct, score) == 0.75


def test_area_under_roc_equals_a_loop_over_all_pairs(candidates: tuple[BoolArray, FloatArray]):
    correct, score = candidates
    points = [pair_points(a, b) for a in score[correct] for b in score[~correct]]
    assert area_under_roc(correct, score) == pytest.approx(np.mean(points))
    assert area_under_roc(correct, -score) == pytest.approx(1 - np.mean(points))


def test_without_both_classes_there_is_nothing_to_rank():
    score = np.zeros((2, 3))
    for correct in (np.ones((2, 3), bool), np.zeros((2, 3), bool)):
        assert not pair_wins(correct, score)[1].any()
        assert np.isnan(area_under_roc(correct, score))
    assert area_under_roc(np.array([True, False]), np.zeros(2)) == 0.5


@pytest.mark.parametrize("bins", [1, 10, 15])
def test_calibration_error_equals_a_loop_over_bins(bins: int):
    generator = np.random.default_rng(1)
    probability = np.concatenate([generator.random(500), [0.0, 0.2, 0.5, 1.0]])
    correct = generator.random(504) < probability**2
    expected = 0.0
    for index in range(bins):
        inside = (probability > index / bins) & (probability <= (index + 1) / bins)
        if index == 0:
            inside |= probability == 0
        if inside.any():
            gap = abs(probability[inside].mean() - correct[inside].mean())
            expected += inside.mean() * gap
    assert expected_calibration_error(probability, correct, bins) == pytest.approx(expected)


def test_calibration_error_of_known_cases():
    correct = np.array([[True, True, True, False]])
    assert expected_calibration_error(np.full((1, 4), 0.75), correct) == pytest.approx(0)
    assert expected_calibration_error(np.full((1, 4), 0.5), correct) == pytest.approx(0.25)
    assert expected_calibration_error(np.zeros((1, 4)), correct) == pytest.approx(0.75)


def test_calibration_bins_count_and_sum():
    bins = calibration_bins(np.array([[0.0, 0.1], [0.9, 1.0]]), np.array([[False, True], [True, True]]), bins=4)
    assert bins.count.tolist() == [2, 0, 0, 2]
    assert bins.probability == pytest.approx([0.1, 0, 0, 1.9])
    assert bins.correct.tolist() == [1, 0, 0, 2]


def test_bins_are_fifteen_unless_told_and_the_upper_ones_may_be_empty():
    probability, correct = np.array([0.05, 0.1, 0.4]), np.array([False, True, True])
    bins = calibration_bins(probability, correct)
    assert bins.count.tolist() == [1, 1, 0, 0, 0, 1, *[0] * 9]
    assert len(bins.probability) == len(bins.correct) == 15
    assert expected_calibration_error(probability, correct) == pytest.approx((0.05 + 0.9 + 0.6) / 3)
    together = np.array([0.05, 0.066])  # in the first of 15 bins, but in two of 16
    assert expected_calibration_error(together, correct[:2]) == pytest.approx((1 - 0.05 - 0.066) / 2)


def test_a_probability_on_an_edge_belongs_to_the_bin_below():
    probability, correct = np.array([0.3, 0.5]), np.array([False, True])
    assert expected_calibration_error(probability, correct, bins=2) == pytest.approx(0.1)


@pytest.mark.parametrize(
    ("scores", "said"), [([-2.0, 3.0], "-2 to 3"), ([-0.1, 0.5], r"-0\.1 to 0\.5"), ([0.5, 1.1], r"0\.5 to 1\.1")]
)
def test_scores_are_not_taken_for_probabilities(scores: list[float], said: str):
    with pytest.raises(InvalidRequest, match=rf"from {said}, expected 0 to 1"):
        expected_calibration_error(np.array(scores), np.array([True, False]))
