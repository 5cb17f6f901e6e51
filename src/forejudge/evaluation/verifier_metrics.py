"""How good a verifier is, in one set of figures over labelled candidates in groups. Pure functions of arrays.

Shapes: M candidates of all groups; within a group of N they keep the order in which they are given. A group is what a
verifier chooses among: the candidates of one prompt and image. Groups may differ in size.
"""

import math
from collections import defaultdict
from collections.abc import Hashable, Iterable, Iterator
from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import NDArray

from forejudge.errors import InvalidRequest
from forejudge.evaluation.best_of_n import (
    BoolArray,
    FloatArray,
    area_under_roc,
    best_of_n,
    distance_closed,
    expected_calibration_error,
    pair_wins,
    perfect_judge,
    random_choice,
)


@dataclass(frozen=True)
class VerifierMetrics:
    """Figures of one verifier over labelled candidates; nan where the candidates leave one undefined.

    `auroc`, `balanced_accuracy` and `pair_accuracy` are in [0, 1] with 0.5 for chance, and nan where right or wrong
    candidates are absent (for pairs: where no group has both). `expected_calibration_error` is in [0, 1].
    `best_of_group_gain_share` is what choosing the best-scored of each whole group gains over a random choice, as a
    share of what a perfect judge gains: at most 1, negative for worse than random, nan where there is nothing to gain.
    """

    auroc: float
    balanced_accuracy: float
    expected_calibration_error: float
    pair_accuracy: float
    best_of_group_gain_share: float
    count: int
    positive_share: float

    def to_json(self) -> dict[str, float | int | None]:
        """By name, with None for nan, which JSON does not have."""
        return {name: None if math.isnan(value) else value for name, value in asdict(self).items()}


def verifier_metrics(
    group_ids: Iterable[Hashable], correct: BoolArray, score: FloatArray, probability: FloatArray
) -> VerifierMetrics:
    """All figures, from arrays (M,).

    `group_ids` says which candidates belong together, wherever they stand. `score` orders candidates, such as
    log-odds; of equals the first of its group is chosen. `probability` in [0, 1] is the calibrated one of being
    correct. Raises InvalidRequest for no candidates, for lengths that differ, and for probabilities outside [0, 1].
    """
    groups = list(group_ids)
    lengths = [len(groups), len(correct), len(score), len(probability)]
    if len(set(lengths)) > 1 or not groups:
        raise InvalidRequest(
            f"group ids, correct, score, probability of lengths {lengths}, expected one value for each"
        )
    pair_share, gain_share = _within_groups(groups, correct, score)
    return VerifierMetrics(
        auroc=area_under_roc(correct, score),
        balanced_accuracy=balanced_accuracy(correct, probability),
        expected_calibration_error=expected_calibration_error(probability, correct),
        pair_accuracy=pair_share,
        best_of_group_gain_share=gain_share,
        count=len(groups),
        positive_share=float(correct.mean()),
    )


def balanced_accuracy(correct: BoolArray, probability: FloatArray) -> float:
    """The mean of the shares of right and of wrong candidates told as such; nan without both kinds.

    Any shape, the same for both. A candidate is taken for right where its probability reaches 0.5.
    """
    if correct.all() or not correct.any():
        return float("nan")
    told_right = probability >= 0.5
    return float((told_right[correct].mean() + (~told_right[~correct]).mean()) / 2)


def _within_groups(groups: list[Hashable], correct: BoolArray, score: FloatArray) -> tuple[float, float]:
    """Pair accuracy and the share of the gain, each a ratio of sums over all groups."""
    parts = [_of_one_size(correct[rows_CN], score[rows_CN]) for rows_CN in _rows_by_size(groups)]
    wins, pairs, best, blind, perfect = np.concatenate(parts, axis=1).mean(axis=1)
    pair_share = wins / pairs if pairs else float("nan")
    return float(pair_share), float(distance_closed(best, blind, perfect))


def _of_one_size(correct_CN: BoolArray, score_CN: FloatArray) -> FloatArray:
    """(5, C) for C groups of N: pairs won and all pairs; the best-scored, a random and a perfect choice."""
    n = correct_CN.shape[1]
    choices = best_of_n(correct_CN, score_CN, n), random_choice(correct_CN, n), perfect_judge(correct_CN, n)
    return np.stack([*pair_wins(correct_CN, score_CN), *choices])


def _rows_by_size(groups: list[Hashable]) -> Iterator[NDArray[np.intp]]:
    """Row numbers (C, N) of the groups of each size N."""
    rows_of: defaultdict[Hashable, list[int]] = defaultdict(list)
    for row, group in enumerate(groups):
        rows_of[group].append(row)
    for size in sorted({len(rows) for rows in rows_of.values()}):
        yield np.array([rows for rows in rows_of.values() if len(rows) == size])
