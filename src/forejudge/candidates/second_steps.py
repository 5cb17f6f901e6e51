"""Which candidates' second denoising step a search may ask for, so that an evaluation generates no other.

Shapes: G searches (an image of a prompt with one seed), N candidates in the order they were generated.
"""

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from forejudge.candidates.evaluation_store import RowVerdict

BoolArray = NDArray[np.bool_]


def doubtful_winners(verdicts: Sequence[Mapping[str, RowVerdict]], candidates: int, below: float) -> list[int]:
    """Return the rows of candidates that can win a search, by some verifier, with a probability below `below`.

    Searches end after any number of candidates, so those can win whose score exceeds that of all before them. Each
    search has `candidates` consecutive rows; verifiers without probabilities leave no winner in doubt.
    """
    doubtful_GN = np.zeros((len(verdicts) // candidates, candidates), np.bool_)
    for name in verdicts[0]:
        score_GN, probability_GN = (
            np.array([row[name][field] for row in verdicts], np.float64).reshape(-1, candidates)
            for field in ("score", "probability")
        )
        doubtful_GN |= _can_win(score_GN) & (probability_GN < below)  # nan is not below
    return [int(row) for row in np.flatnonzero(doubtful_GN)]


def _can_win(score_GN: NDArray[np.float64]) -> BoolArray:
    best_before_GN = np.maximum.accumulate(score_GN, axis=1)[:, :-1]
    can_win_GN: BoolArray = np.insert(score_GN[:, 1:] > best_before_GN, 0, True, axis=1)
    return can_win_GN
