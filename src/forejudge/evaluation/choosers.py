"""Who picks one of the first n candidates: a verifier, several together, chance, or a judge that knows.

Every pick is a function of scores of these n alone, as it would be in a search that ended there. Of equals the one
drawn first is picked.
"""

from collections.abc import Callable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from forejudge.evaluation.best_of_n import FloatArray, best_of_n, perfect_judge, random_choice
from forejudge.evaluation.outcomes import Outcomes

Chooser = Callable[[Outcomes, int], FloatArray]
"""(outcomes, n) -> per case, averaged over seeds, how often the pick among the first n is right, in [0, 1]."""

Scores = Callable[[Outcomes, int], FloatArray]
"""(outcomes, n) -> what the first n are ordered by, (C, S, n)."""


def at_random(outcomes: Outcomes, n: int) -> FloatArray:
    """A blind choice."""
    return _over_seeds(outcomes, lambda seed: random_choice(outcomes.correct_CSN[:, seed], n))


def perfect(outcomes: Outcomes, n: int) -> FloatArray:
    """A judge that knows: right if any of them is."""
    return _over_seeds(outcomes, lambda seed: perfect_judge(outcomes.correct_CSN[:, seed], n))


def choosing_by(scores: Scores) -> Chooser:
    """The one of highest score."""

    def choose(outcomes: Outcomes, n: int) -> FloatArray:
        score_CSN = scores(outcomes, n)
        return _over_seeds(outcomes, lambda seed: best_of_n(outcomes.correct_CSN[:, seed, :n], score_CSN[:, seed], n))

    return choose


def verifier_scores(name: str) -> Scores:
    """What one verifier says."""
    return lambda outcomes, n: outcomes.score_CSN[name][..., :n]


def mean_rank(names: Sequence[str]) -> Scores:
    """Minus the mean of the ranks that several verifiers give, whatever their scales; equals share their mean rank."""

    def scores(outcomes: Outcomes, n: int) -> FloatArray:
        ranks = [_ranks(outcomes.score_CSN[name][..., :n]) for name in names]
        averaged: FloatArray = -np.mean(ranks, axis=0)
        return averaged

    return scores


def weighted_sum(weights: Mapping[str, float]) -> Scores:
    """The weighted sum of what several verifiers say: of log-odds, as if they were independent witnesses."""

    def scores(outcomes: Outcomes, n: int) -> FloatArray:
        parts = [weight * outcomes.score_CSN[name][..., :n] for name, weight in weights.items()]
        summed: FloatArray = np.sum(parts, axis=0)
        return summed

    return scores


def share_of_ties(scores: Scores, outcomes: Outcomes, n: int) -> float:
    """How often more than one of the first n has the highest score, in [0, 1]."""
    score_CSN = scores(outcomes, n)
    best_CS1 = score_CSN.max(axis=-1, keepdims=True)
    return float(((score_CSN == best_CS1).sum(axis=-1) > 1).mean())


def _ranks(score_CSN: FloatArray) -> FloatArray:
    """0 for the highest along the last axis; equals share the mean of their places."""
    below_CSNN = score_CSN[..., :, None] < score_CSN[..., None, :]
    equal_CSNN = score_CSN[..., :, None] == score_CSN[..., None, :]
    ranks: FloatArray = below_CSNN.sum(axis=-1) + (equal_CSNN.sum(axis=-1) - 1) / 2
    return ranks


def _over_seeds(outcomes: Outcomes, of_seed: Callable[[int], FloatArray]) -> NDArray[np.float64]:
    averaged: FloatArray = np.mean([of_seed(seed) for seed in range(outcomes.correct_CSN.shape[1])], axis=0)
    return averaged
