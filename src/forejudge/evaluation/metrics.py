"""Figures of a verifier over labelled candidates. Pure functions of arrays.

Shapes: C cases, N candidates in the order in which they were drawn. `correct_CN` is boolean (what
the judge of finished pictures says), `score_CN` the verifier's score, comparable within a row.
Outcomes per case are float64 arrays (C,) in [0, 1], ready for an average or an interval.
"""

import math
from collections import defaultdict
from collections.abc import Hashable, Iterable, Iterator
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from forejudge.errors import InvalidRequest
from forejudge.prompts.geneval import TASKS

FloatArray = NDArray[np.float64]
BoolArray = NDArray[np.bool_]


def best_of_n(correct_CN: BoolArray, score_CN: FloatArray, n: int) -> FloatArray:
    """Whether the candidate of highest score among the first n is correct; of equals, the first."""
    _check_scores(correct_CN, score_CN)
    selected_C = _first_n(score_CN, n).argmax(axis=1)
    return correct_CN[np.arange(len(correct_CN)), selected_C].astype(np.float64)


def random_choice(correct_CN: BoolArray, n: int) -> FloatArray:
    """The expected outcome of choosing blindly among the first n."""
    return _first_n(correct_CN, n).mean(axis=1)


def oracle_choice(correct_CN: BoolArray, n: int) -> FloatArray:
    """Whether any of the first n is correct: what no choice can exceed."""
    return np.any(_first_n(correct_CN, n), axis=1).astype(np.float64)


def oracle_gap_closed(verifier: ArrayLike, first: ArrayLike, oracle: ArrayLike) -> FloatArray:
    """(verifier - first) / (perfect - first), elementwise; nan where there is no distance.

    Of means over cases: the verifier's Best-of-N, candidate 0 alone, the perfect judge's Best-of-N.
    A ratio of means, never a mean of ratios, and so a statistic for `bootstrap_interval`.
    """
    gained, possible = np.subtract(verifier, first), np.subtract(oracle, first)
    return np.divide(gained, possible, out=np.full(np.shape(possible), np.nan), where=possible != 0)


def pair_wins(correct_CN: BoolArray, score_CN: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Per case, the pairs of a correct and a wrong candidate: (ordered rightly, all).

    A pair of equal scores counts half.
    """
    _check_scores(correct_CN, score_CN)
    pair_CNN = correct_CN[:, :, None] & ~correct_CN[:, None, :]
    right_CNN = score_CN[:, :, None] > score_CN[:, None, :]
    tied_CNN = score_CN[:, :, None] == score_CN[:, None, :]
    wins_C = (pair_CNN & right_CNN).sum(axis=(1, 2)) + 0.5 * (pair_CNN & tied_CNN).sum(axis=(1, 2))
    return wins_C, pair_CNN.sum(axis=(1, 2)).astype(np.float64)


def pair_accuracy(correct_CN: BoolArray, score_CN: FloatArray) -> float:
    """The share of the pairs within cases that are ordered rightly; nan where there is no pair."""
    wins_C, pairs_C = pair_wins(correct_CN, score_CN)
    return float(wins_C.sum() / pairs_C.sum()) if pairs_C.any() else float("nan")


def area_under_roc(correct: BoolArray, score: FloatArray) -> float:
    """The share of pairs over all candidates, of any case, ordered rightly; nan without both kinds.

    Any shape, the same for both; ties count half (the rank-sum form of Mann and Whitney).
    """
    _check_scores(correct, score)
    positives, negatives = int(correct.sum()), int((~correct).sum())
    if positives == 0 or negatives == 0:
        return float("nan")
    _, inverse, counts = np.unique(score.ravel(), return_inverse=True, return_counts=True)
    mean_rank = np.cumsum(counts) - (counts - 1) / 2
    rank_sum = mean_rank[inverse][correct.ravel()].sum()
    return float((rank_sum - positives * (positives + 1) / 2) / (positives * negatives))


@dataclass(frozen=True)
class CalibrationBins:
    """Candidates by their probability, arrays (bins,): how many, and the sums of probabilities and of right ones."""

    count: NDArray[np.intp]
    probability: FloatArray
    correct: FloatArray


def calibration_bins(probability: FloatArray, correct: BoolArray, bins: int = 15) -> CalibrationBins:
    """Both of any shape, the same for both. Raises InvalidRequest for probabilities outside [0, 1].

    The bins are equally wide, open below and closed above, the first at both ends (Guo et al., 2017).
    """
    _check_scores(correct, probability)
    if probability.min() < 0 or probability.max() > 1:
        raise InvalidRequest(
            f"probabilities from {probability.min():g} to {probability.max():g}, expected 0 to 1; "
            "scores need a calibration first"
        )
    bin_index = np.maximum(np.ceil(probability.ravel() * bins).astype(np.intp) - 1, 0)
    sums = [np.bincount(bin_index, weights=values.ravel(), minlength=bins) for values in (probability, correct)]
    return CalibrationBins(np.bincount(bin_index, minlength=bins), *(each.astype(np.float64) for each in sums))


def expected_calibration_error(probability: FloatArray, correct: BoolArray, bins: int = 15) -> float:
    """Mean distance in [0, 1] of probability and share correct, over `calibration_bins` weighted by their size."""
    totals = calibration_bins(probability, correct, bins)
    return float(np.abs(totals.probability - totals.correct).sum() / probability.size)


def task_averages(outcome_C: FloatArray, tasks: ArrayLike) -> dict[str, float]:
    """The mean of the cases of each task that has any, in the order of the paper."""
    task_C = np.asarray(tasks)
    unknown = sorted(set(task_C.tolist()) - set(TASKS))
    if unknown:
        raise InvalidRequest(f"unknown tasks {', '.join(unknown)}, expected {', '.join(TASKS)}")
    return {task: float(outcome_C[task_C == task].mean()) for task in TASKS if (task_C == task).any()}


def micro_average(outcome_C: FloatArray) -> float:
    """The mean over cases: the paper's "overall"."""
    return float(outcome_C.mean())


def macro_average(outcome_C: FloatArray, tasks: ArrayLike) -> float:
    """The mean of the means of the tasks that have cases: what GenEval's own summary prints."""
    return float(np.mean(list(task_averages(outcome_C, tasks).values())))


def _first_n(values_CN: NDArray[Any], n: int) -> NDArray[Any]:
    candidates = values_CN.shape[1]
    if not 1 <= n <= candidates:
        raise InvalidRequest(f"Best-of-{n} of {candidates} candidates, expected n from 1 to {candidates}")
    return values_CN[:, :n]


def _check_scores(correct: BoolArray, score: FloatArray) -> None:
    assert correct.dtype == np.bool_
    assert correct.shape == score.shape
    assert not np.isnan(score).any(), "a verdict without a score"


# FOLDED: How good a verifier is, in one set of figures over labelled candidates in groups. Pure functions of arrays.
#
# Shapes: M candidates of all groups; within a group of N they keep the order in which they are given. A group is what a
# verifier chooses among: the candidates of one prompt and image. Groups may differ in size.


@dataclass(frozen=True)
class VerifierMetrics:
    """Figures of one verifier over labelled candidates; nan where the candidates leave one undefined.

    `auroc`, `balanced_accuracy` and `pair_accuracy` are in [0, 1] with 0.5 for chance, and nan where right or wrong
    candidates are absent (for pairs: where no group has both). `expected_calibration_error` is in [0, 1].
    `oracle_gap_closed_vs_random` is what choosing the best-scored of each whole group gains over a random choice, as a
    share of what a perfect judge gains: at most 1, negative for worse than random, nan where there is nothing to gain.
    """

    auroc: float
    balanced_accuracy: float
    expected_calibration_error: float
    pair_accuracy: float
    oracle_gap_closed_vs_random: float
    count: int
    positive_rate: float

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
    pair_accuracy_value, gap_closed = _group_metrics(groups, correct, score)
    return VerifierMetrics(
        auroc=area_under_roc(correct, score),
        balanced_accuracy=balanced_accuracy(correct, probability),
        expected_calibration_error=expected_calibration_error(probability, correct),
        pair_accuracy=pair_accuracy_value,
        oracle_gap_closed_vs_random=gap_closed,
        count=len(groups),
        positive_rate=float(correct.mean()),
    )


def balanced_accuracy(correct: BoolArray, probability: FloatArray) -> float:
    """The mean of the shares of right and of wrong candidates told as such; nan without both kinds.

    Any shape, the same for both. A candidate is taken for right where its probability reaches 0.5.
    """
    if correct.all() or not correct.any():
        return float("nan")
    predicted_correct = probability >= 0.5
    return float((predicted_correct[correct].mean() + (~predicted_correct[~correct]).mean()) / 2)


def _group_metrics(groups: list[Hashable], correct: BoolArray, score: FloatArray) -> tuple[float, float]:
    """Pair accuracy and the share of the gain, each a ratio of sums over all groups."""
    parts = [_group_outcomes(correct[rows_CN], score[rows_CN]) for rows_CN in _rows_by_size(groups)]
    wins, pairs, best, random, oracle = np.concatenate(parts, axis=1).mean(axis=1)
    pair_accuracy_value = wins / pairs if pairs else float("nan")
    return float(pair_accuracy_value), float(oracle_gap_closed(best, random, oracle))


def _group_outcomes(correct_CN: BoolArray, score_CN: FloatArray) -> FloatArray:
    """(5, C) for C groups of N: pairs won and all pairs; the best-scored, a random and a perfect choice."""
    n = correct_CN.shape[1]
    choices = best_of_n(correct_CN, score_CN, n), random_choice(correct_CN, n), oracle_choice(correct_CN, n)
    return np.stack([*pair_wins(correct_CN, score_CN), *choices])


def _rows_by_size(groups: list[Hashable]) -> Iterator[NDArray[np.intp]]:
    """Row numbers (C, N) of the groups of each size N."""
    rows_by_group: defaultdict[Hashable, list[int]] = defaultdict(list)
    for row, group in enumerate(groups):
        rows_by_group[group].append(row)
    for size in sorted({len(rows) for rows in rows_by_group.values()}):
        yield np.array([rows for rows in rows_by_group.values() if len(rows) == size])
