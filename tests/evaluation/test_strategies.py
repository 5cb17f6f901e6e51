"""Selection strategies: one verifier, several combined, random and oracle."""

import numpy as np
import pytest

from forejudge.evaluation.strategies import (
    Outcomes,
    best_score_strategy,
    mean_rank,
    oracle_strategy,
    random_strategy,
    tie_rate,
    verifier_scores,
    weighted_sum,
)
from tests.support.stand_in_outcomes import outcomes as stand_in_outcomes

OUTCOMES = stand_in_outcomes()


def of_scores(**scores: list[float]) -> Outcomes:
    """Make outcomes of one case and seed whose last candidate is right."""
    count = len(next(iter(scores.values())))
    correct = np.array([[[False] * (count - 1) + [True]]])
    arrays = {name: np.array([[values]]) for name, values in scores.items()}
    return Outcomes(["a"], ["counting"], correct, arrays, {})


def test_a_verifier_that_knows_is_an_oracle_and_random_lies_between() -> None:
    for n in (1, 2, 4):
        knows = best_score_strategy(verifier_scores("knows"))(OUTCOMES, n)
        assert knows.tolist() == oracle_strategy(OUTCOMES, n).tolist()
        contrary = best_score_strategy(verifier_scores("contrary"))(OUTCOMES, n)
        assert contrary.mean() <= random_strategy(OUTCOMES, n).mean() <= knows.mean()
        assert random_strategy(OUTCOMES, n).mean() == pytest.approx(OUTCOMES.correct_CSN[..., :n].mean())


def test_ties_go_to_the_earlier_candidate() -> None:
    assert (
        best_score_strategy(verifier_scores("silent"))(OUTCOMES, 4).tolist()
        == OUTCOMES.correct_CSN[..., 0].mean(1).tolist()
    )
    assert tie_rate(verifier_scores("silent"), OUTCOMES, 4) == 1
    assert tie_rate(verifier_scores("silent"), OUTCOMES, 1) == 0


def test_ranks_are_those_among_the_first_n() -> None:
    """Candidate 2 is second for both; among the first two it is not there at all."""
    outcomes = of_scores(one=[3.0, 1.0, 2.0], other=[10.0, 300.0, 200.0])
    assert mean_rank(["one", "other"])(outcomes, 3).tolist() == [[[-1, -1, -1]]]
    assert mean_rank(["one", "other"])(outcomes, 2).tolist() == [[[-0.5, -0.5]]]


def test_equal_scores_share_a_rank() -> None:
    assert mean_rank(["one"])(of_scores(one=[5.0, 5.0, 7.0]), 3).tolist() == [[[-1.5, -1.5, 0]]]


def test_a_weighted_sum_adds_weighted_scores() -> None:
    outcomes = of_scores(one=[1.0, 2.0], other=[4.0, 0.0])
    assert weighted_sum({"one": 1, "other": 0.5})(outcomes, 2).tolist() == [[[3, 2]]]
    assert best_score_strategy(weighted_sum({"one": 1, "other": 0.1}))(outcomes, 2).tolist() == [1]
