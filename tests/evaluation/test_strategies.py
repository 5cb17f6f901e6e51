"""Who picks: one verifier, several together, chance, and a judge that knows."""

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
from tests.support.stand_in_outcomes import outcomes

DRAWN = outcomes()


def of_scores(**scores: list[float]) -> Outcomes:
    """One case, one seed; the last candidate is right."""
    count = len(next(iter(scores.values())))
    correct = np.array([[[False] * (count - 1) + [True]]])
    arrays = {name: np.array([[values]]) for name, values in scores.items()}
    return Outcomes(["a"], ["counting"], correct, arrays, {})


def test_who_knows_is_a_perfect_judge_and_chance_lies_between() -> None:
    for n in (1, 2, 4):
        knows = best_score_strategy(verifier_scores("knows"))(DRAWN, n)
        assert knows.tolist() == oracle_strategy(DRAWN, n).tolist()
        contrary = best_score_strategy(verifier_scores("contrary"))(DRAWN, n)
        assert contrary.mean() <= random_strategy(DRAWN, n).mean() <= knows.mean()
        assert random_strategy(DRAWN, n).mean() == pytest.approx(DRAWN.correct_CSN[..., :n].mean())


def test_of_equals_the_first_is_picked() -> None:
    assert (
        best_score_strategy(verifier_scores("silent"))(DRAWN, 4).tolist() == DRAWN.correct_CSN[..., 0].mean(1).tolist()
    )
    assert tie_rate(verifier_scores("silent"), DRAWN, 4) == 1
    assert tie_rate(verifier_scores("silent"), DRAWN, 1) == 0


def test_ranks_are_those_among_the_first_n() -> None:
    """Candidate 2 is second for both; among the first two it is not there at all."""
    said = of_scores(one=[3.0, 1.0, 2.0], other=[10.0, 300.0, 200.0])
    assert mean_rank(["one", "other"])(said, 3).tolist() == [[[-1, -1, -1]]]
    assert mean_rank(["one", "other"])(said, 2).tolist() == [[[-0.5, -0.5]]]


def test_equal_scores_share_a_rank() -> None:
    assert mean_rank(["one"])(of_scores(one=[5.0, 5.0, 7.0]), 3).tolist() == [[[-1.5, -1.5, 0]]]


def test_a_weighted_sum_is_one() -> None:
    said = of_scores(one=[1.0, 2.0], other=[4.0, 0.0])
    assert weighted_sum({"one": 1, "other": 0.5})(said, 2).tolist() == [[[3, 2]]]
    assert best_score_strategy(weighted_sum({"one": 1, "other": 0.1}))(said, 2).tolist() == [1]
