"""Figures of outcomes with their 95 % intervals, as JSON holds them: averages, tasks, distances, differences."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from forejudge.evaluation.bootstrap import Figure, averages, bootstrap_difference, figure
from forejudge.evaluation.metrics import (
    FloatArray,
    area_under_roc,
    distance_closed,
    expected_calibration_error,
    pair_wins,
)
from forejudge.evaluation.strategies import Outcomes, at_random, choosing_by, perfect, share_of_ties, verifier_scores


def averages_of(outcomes: Outcomes, outcome_C: FloatArray) -> dict[str, Figure]:
    """Micro (over cases) and macro (over tasks) average and every task's, each with its interval."""
    return averages(outcomes.prompts, outcomes.tasks, outcome_C)


def difference(outcomes: Outcomes, one_C: FloatArray, other_C: FloatArray) -> Figure:
    """Of the micro averages, one less the other, paired, with the two-sided p of there being none."""
    found = bootstrap_difference(outcomes.prompts, one_C, other_C, rng=np.random.default_rng(0))
    return {name: round(float(value), 4) for name, value in vars(found).items()}


def chosen_by(outcomes: Outcomes, verifiers: Sequence[str], n: int) -> FloatArray:
    """Best-of-n of each case by a verifier; of several, their mean."""
    chosen_C: FloatArray = np.mean([choosing_by(verifier_scores(name))(outcomes, n) for name in verifiers], axis=0)
    return chosen_C


def distance_closed_by(outcomes: Outcomes, verifiers: Sequence[str], n: int) -> Figure:
    """(verifier's Best-of-n - candidate 0) / (perfect judge's Best-of-n - candidate 0); of several, their mean."""
    columns = [chosen_by(outcomes, verifiers, n), at_random(outcomes, 1), perfect(outcomes, n)]
    return figure(distance_closed, outcomes.prompts, *columns)


def pair_accuracy_of(outcomes: Outcomes, verifiers: Sequence[str]) -> Figure:
    """The share of pairs inside a case and seed that these verifiers order rightly."""
    candidates, by_case = outcomes.candidates, (len(outcomes.prompts), -1)
    correct_RN = outcomes.correct_CSN.reshape(-1, candidates)
    counted = [pair_wins(correct_RN, outcomes.score_CSN[name].reshape(-1, candidates)) for name in verifiers]
    columns = [np.mean([parts[at].reshape(by_case).mean(1) for parts in counted], axis=0) for at in (0, 1)]
    return figure(_share, outcomes.prompts, *columns)


def ranking_figures(outcomes: Outcomes, verifier: str) -> dict[str, Any]:
    """Pooled AUROC, pair accuracy inside a case, calibration error (None without), how often the best is tied."""
    probability = outcomes.probability_CSN.get(verifier)
    calibration = None if probability is None else expected_calibration_error(probability, outcomes.correct_CSN)
    return {
        "auroc": area_under_roc(outcomes.correct_CSN, outcomes.score_CSN[verifier]),
        "pair_accuracy": pair_accuracy_of(outcomes, [verifier]),
        "expected_calibration_error": calibration,
        "ties": share_of_ties(verifier_scores(verifier), outcomes, outcomes.candidates),
    }


def _share(part: FloatArray, whole: FloatArray) -> FloatArray:
    return np.divide(part, whole, out=np.full(np.shape(whole), np.nan), where=whole != 0)
