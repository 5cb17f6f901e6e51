"""Second steps that a search may ask for, against every search there can be."""

import numpy as np

from forejudge.candidates.evaluation_store import RowVerdict
from forejudge.candidates.second_steps import doubtful_winners
from forejudge.search import order_by_score
from forejudge.types import Verdict


def test_they_are_those_of_winners_of_any_length_with_a_low_probability() -> None:
    rng = np.random.default_rng(0)
    score_RV, probability_RV = rng.integers(0, 6, (40, 2)), rng.random((40, 2))  # ties among them
    verdicts = [
        {
            "calibrated": RowVerdict(score=float(score_RV[row, 0]), probability=float(probability_RV[row, 0])),
            "also": RowVerdict(score=float(score_RV[row, 1]), probability=float(probability_RV[row, 1])),
            "not": RowVerdict(score=0.0, probability=None),
        }
        for row in range(40)
    ]
    expected = {
        first + winner
        for verifier in range(2)
        for first in range(0, 40, 8)
        for n in range(1, 9)
        for winner in [order_by_score([Verdict(float(score)) for score in score_RV[first : first + n, verifier]])[0]]
        if probability_RV[first + winner, verifier] < 0.7
    }
    assert doubtful_winners(verdicts, 8, 0.7) == sorted(expected)
    assert 0 < len(expected) < 30
