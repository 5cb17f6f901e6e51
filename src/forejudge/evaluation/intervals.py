"""Figures of outcomes with their 95 % intervals, as JSON holds them: averages, tasks, distances, differences."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from forejudge.evaluation.bootstrap import IntervalDict, bootstrap_averages, bootstrap_difference, bootstrap_figure
from forejudge.evaluation.metrics import (
    FloatArray,
    area_under_roc,
    expected_calibration_error,
    oracle_gap_closed,
    pair_wins,
)
from forejudge.evaluation.strategies import (
    Outcomes,
    best_score_strategy,
    oracle_strategy,
    random_strategy,
    tie_rate,
    verifier_scores,
)


def outcome_averages(outcomes: Outcomes, outcome_C: FloatArray) -> dict[str, IntervalDict]:
    """Micro (over cases) and macro (over tasks) average and every task's, each with its interval."""
    return bootstrap_averages(outcomes.prompts, outcomes.tasks, outcome_C)


def paired_difference(outcomes: Outcomes, one_C: FloatArray, other_C: FloatArray) -> IntervalDict:
    """Of the micro averages, one less the other, paired, with the two-sided p of there being none."""
    interval = bootstrap_difference(outcomes.prompts, one_C, other_C, rng=np.random.default_rng(0))
    return {name: round(float(value), 4) for name, value in vars(interval).items()}


def best_of_n_outcome(outcomes: Outcomes, verifiers: Sequence[str], n: int) -> FloatArray:
    """Best-of-n of each case by a verifier; of several, their mean."""
    outcome_C: FloatArray = np.mean(
        [best_score_strategy(verifier_scores(name))(outcomes, n) for name in verifiers], axis=0
    )
    return outcome_C


def oracle_gap_closed_interval(outcomes: Outcomes, verifiers: Sequence[str], n: int) -> IntervalDict:
    """(verifier's Best-of-n - candidate 0) / (perfect judge's Best-of-n - candidate 0); of several, their mean."""
    columns = [best_of_n_outcome(outcomes, verifiers, n), random_strategy(outcomes, 1), oracle_strategy(outcomes, n)]
    return bootstrap_figure(oracle_gap_closed, outcomes.prompts, *columns)


def pair_accuracy_interval(outcomes: Outcomes, verifiers: Sequence[str]) -> IntervalDict:
    """The share of pairs inside a case and seed that these verifiers order rightly."""
    candidates, by_case = outcomes.candidates, (len(outcomes.prompts), -1)
    correct_RN = outcomes.correct_CSN.reshape(-1, candidates)
    wins_and_pairs = [pair_wins(correct_RN, outcomes.score_CSN[name].reshape(-1, candidates)) for name in verifiers]
    columns = [np.mean([parts[index].reshape(by_case).mean(1) for parts in wins_and_pairs], axis=0) for index in (0, 1)]
    return bootstrap_figure(_ratio, outcomes.prompts, *columns)


def ranking_metrics(outcomes: Outcomes, verifier: str) -> dict[str, Any]:
    """Pooled AUROC, pair accuracy inside a case, calibration error (None without), how often the best is tied."""
    probability = outcomes.probability_CSN.get(verifier)
    calibration = None if probability is None else expected_calibration_error(probability, outcomes.correct_CSN)
    return {
        "auroc": area_under_roc(outcomes.correct_CSN, outcomes.score_CSN[verifier]),
        "pair_accuracy": pair_accuracy_interval(outcomes, [verifier]),
        "expected_calibration_error": calibration,
        "tie_rate": tie_rate(verifier_scores(verifier), outcomes, outcomes.candidates),
    }


def _ratio(part: FloatArray, whole: FloatArray) -> FloatArray:
    return np.divide(part, whole, out=np.full(np.shape(whole), np.nan), where=whole != 0)
