"""Metrics of a verifier on labeled candidates. Pure functions of arrays.

Shapes: C cases, N candidates in the order they were generated, M candidates of all groups. `correct_CN` is boolean (the
evaluator's verdict on the finished image), `score_CN` the verifier's score, comparable within a row. Outcomes per case
are float64 arrays (C,) in [0, 1], ready for an average or an interval.
"""

import math
from collections import defaultdict
from collections.abc import Hashable, Iterable, Iterator
from dataclasses import asdict, dataclass
from typing import Any, TypeVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from forejudge.errors import InvalidRequest

FloatArray = NDArray[np.float64]
BoolArray = NDArray[np.bool_]
GroupT = TypeVar("GroupT", bound=Hashable)


def best_of_n(correct_CN: BoolArray, score_CN: FloatArray, n: int) -> FloatArray:
    """Return the outcome of picking the highest score among the first n; ties go to the earlier candidate."""
    _check_scores(correct_CN, score_CN)
    selected_C = _first_n(score_CN, n).argmax(axis=1)
    return correct_CN[np.arange(len(correct_CN)), selected_C].astype(np.float64)


def random_choice(correct_CN: BoolArray, n: int) -> FloatArray:
    """Return the expected outcome of a random pick among the first n."""
    return _first_n(correct_CN, n).mean(axis=1)


def oracle_choice(correct_CN: BoolArray, n: int) -> FloatArray:
    """Return 1 where any of the first n is correct, else 0: the limit of every selection."""
    return np.any(_first_n(correct_CN, n), axis=1).astype(np.float64)


def oracle_gap_closed(verifier: ArrayLike, first: ArrayLike, oracle: ArrayLike) -> FloatArray:
    """Compute (verifier - first) / (oracle - first) elementwise; nan where there is no gap.

    The arguments are means over cases of the verifier's Best-of-N, of candidate 0 alone, and of the oracle's Best-of-N.
    The result is a ratio of means, never a mean of ratios, and so a statistic for `bootstrap_interval`.
    """
    gained, possible = np.subtract(verifier, first), np.subtract(oracle, first)
    return np.divide(gained, possible, out=np.full(np.shape(possible), np.nan), where=possible != 0)


def pair_wins(correct_CN: BoolArray, score_CN: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Count the pairs of a correct and a wrong candidate per case: (correctly ordered, all), each (C,).

    A pair with equal scores counts half.
    """
    _check_scores(correct_CN, score_CN)
    pair_CNN = correct_CN[:, :, None] & ~correct_CN[:, None, :]
    right_CNN = score_CN[:, :, None] > score_CN[:, None, :]
    tied_CNN = score_CN[:, :, None] == score_CN[:, None, :]
    wins_C = (pair_CNN & right_CNN).sum(axis=(1, 2)) + 0.5 * (pair_CNN & tied_CNN).sum(axis=(1, 2))
    return wins_C, pair_CNN.sum(axis=(1, 2)).astype(np.float64)


def area_under_roc(correct: BoolArray, score: FloatArray) -> float:
    """Compute the AUROC over all candidates, of any case; nan without both classes.

    Both arguments have one shape, which may be any. Ties count half (the rank-sum form of Mann and Whitney).
    """
    _check_scores(correct, score)
    positives, negatives = int(correct.sum()), int((~correct).sum())
    if positives == 0 or negatives == 0:
        return float("nan")
    _, inverse, counts = np.unique(score.ravel(), return_inverse=True, return_counts=True)
    mean_rank = np.cumsum(counts) - (counts - 1) / 2
    rank_sum = mean_rank[inverse][correct.ravel()].sum()
    return float((rank_sum - positives * (positives + 1) / 2) / (positives * negatives))


def balanced_accuracy(correct: BoolArray, probability: FloatArray) -> float:
    """Average the accuracy on correct and on wrong candidates; nan without both classes.

    Both arguments have one shape, which may be any. A candidate counts as called correct from a probability of 0.5.
    """
    if correct.all() or not correct.any():
        return float("nan")
    predicted_correct = probability >= 0.5
    return float((predicted_correct[correct].mean() + (~predicted_correct[~correct]).mean()) / 2)


@dataclass(frozen=True)
class CalibrationBins:
    """Candidates in bins of probability, arrays (bins,): their number, and sums of probability and correctness."""

    count: NDArray[np.intp]
    probability: FloatArray
    correct: FloatArray


def calibration_bins(probability: FloatArray, correct: BoolArray, bins: int = 15) -> CalibrationBins:
    """Sort candidates into bins of equal width, open below and closed above, the first at both ends (Guo et al., 2017).

    Both arguments have one shape, which may be any. Raises InvalidRequest for probabilities outside [0, 1].
    """
    _check_scores(correct, probability)
    if probability.min() < 0 or probability.max() > 1:
        raise InvalidRequest(
            f"probabilities from {probability.min():g} to {probability.max():g}, expected 0 to 1: calibrate the scores"
        )
    bin_index = np.maximum(np.ceil(probability.ravel() * bins).astype(np.intp) - 1, 0)
    sums = [np.bincount(bin_index, weights=values.ravel(), minlength=bins) for values in (probability, correct)]
    return CalibrationBins(np.bincount(bin_index, minlength=bins), *(each.astype(np.float64) for each in sums))


def expected_calibration_error(probability: FloatArray, correct: BoolArray, bins: int = 15) -> float:
    """Average |probability - accuracy| in [0, 1] over `calibration_bins`, weighted by their size."""
    totals = calibration_bins(probability, correct, bins)
    return float(np.abs(totals.probability - totals.correct).sum() / probability.size)


@dataclass(frozen=True)
class VerifierMetrics:
    """Metrics of one verifier on labeled candidates in groups; nan where the candidates leave one undefined.

    `auroc`, `balanced_accuracy` and `pair_accuracy` are in [0, 1] with 0.5 for chance, and nan where correct or wrong
    candidates are absent (for pairs: where no group has both). `expected_calibration_error` is in [0, 1].
    `oracle_gap_closed_vs_random` is the gain of picking each group's highest score over random, as a share of the
    oracle's gain: at most 1, negative for worse than random, nan where there is nothing to gain.
    """

    auroc: float
    balanced_accuracy: float
    expected_calibration_error: float
    pair_accuracy: float
    oracle_gap_closed_vs_random: float
    count: int
    positive_rate: float

    def to_json(self) -> dict[str, float | int | None]:
        """Return the metrics by name, with None for nan, which JSON doesn't have."""
        return {name: None if math.isnan(value) else value for name, value in asdict(self).items()}


def verifier_metrics(
    group_ids: Iterable[Hashable], correct: BoolArray, score: FloatArray, probability: FloatArray
) -> VerifierMetrics:
    """Compute all metrics from arrays (M,).

    A group holds the candidates a verifier chooses among: those of one prompt and image. `group_ids` says which
    candidates belong together, in any order; groups may differ in size. `score` orders candidates, such as log-odds;
    ties go to the earlier one of its group. `probability` in [0, 1] is the calibrated one of being correct. Raises
    InvalidRequest for no candidates, for lengths that differ, and for probabilities outside [0, 1].
    """
    groups = list(group_ids)
    lengths = [len(groups), len(correct), len(score), len(probability)]
    if len(set(lengths)) > 1 or not groups:
        raise InvalidRequest(
            f"group ids, correct, score, probability of lengths {lengths}, expected one value for each candidate"
        )
    pair_accuracy, gap_closed = _group_metrics(groups, correct, score)
    return VerifierMetrics(
        auroc=area_under_roc(correct, score),
        balanced_accuracy=balanced_accuracy(correct, probability),
        expected_calibration_error=expected_calibration_error(probability, correct),
        pair_accuracy=pair_accuracy,
        oracle_gap_closed_vs_random=gap_closed,
        count=len(groups),
        positive_rate=float(correct.mean()),
    )


def rows_by_group(groups: Iterable[GroupT]) -> dict[GroupT, list[int]]:
    """Return the row numbers of each group, given the group of each row."""
    rows: defaultdict[GroupT, list[int]] = defaultdict(list)
    for row, group in enumerate(groups):
        rows[group].append(row)
    return dict(rows)


def _group_metrics(groups: list[Hashable], correct: BoolArray, score: FloatArray) -> tuple[float, float]:
    """Return pair accuracy and oracle gap closed, each a ratio of sums over all groups."""
    parts = [_group_outcomes(correct[rows_CN], score[rows_CN]) for rows_CN in _rows_by_size(groups)]
    wins, pairs, best, random, oracle = np.concatenate(parts, axis=1).mean(axis=1)
    return float(wins / pairs) if pairs else float("nan"), float(oracle_gap_closed(best, random, oracle))


def _group_outcomes(correct_CN: BoolArray, score_CN: FloatArray) -> FloatArray:
    """Return (5, C) for C groups of N: pairs won, all pairs, and the outcomes of verifier, random and oracle."""
    n = correct_CN.shape[1]
    choices = best_of_n(correct_CN, score_CN, n), random_choice(correct_CN, n), oracle_choice(correct_CN, n)
    return np.stack([*pair_wins(correct_CN, score_CN), *choices])


def _rows_by_size(groups: list[Hashable]) -> Iterator[NDArray[np.intp]]:
    """Yield the row numbers (C, N) of the groups of each size N."""
    all_rows = rows_by_group(groups).values()
    for size in sorted({len(rows) for rows in all_rows}):
        yield np.array([rows for rows in all_rows if len(rows) == size])


def _first_n(values_CN: NDArray[Any], n: int) -> NDArray[Any]:
    candidates = values_CN.shape[1]
    if not 1 <= n <= candidates:
        raise InvalidRequest(f"Best-of-{n} of {candidates} candidates, expected n from 1 to {candidates}")
    return values_CN[:, :n]


def _check_scores(correct: BoolArray, score: FloatArray) -> None:
    assert correct.dtype == np.bool_
    assert correct.shape == score.shape
    assert not np.isnan(score).any(), "a verdict without a score"
