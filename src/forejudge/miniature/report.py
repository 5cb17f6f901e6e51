"""The table of the miniature's test: Best-of-N by chooser, task and N, with intervals, and the distance closed."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from forejudge.evaluation import task_figures
from forejudge.evaluation.best_of_n import (
    area_under_roc,
    best_of_n,
    distance_closed,
    expected_calibration_error,
    pair_wins,
    perfect_judge,
    random_choice,
)
from forejudge.evaluation.description import Description
from forejudge.evaluation.task_figures import Figure
from forejudge.miniature.evaluation import Outcomes


def chooser_outcomes(outcomes: Outcomes, chooser: str, n: int) -> np.ndarray:
    """Per case, averaged over seeds, how often the pick among the first n is right.

    `chooser` is "random", "perfect" or the name of a verifier.
    """
    per_seed = []
    for seed in range(outcomes.correct_CSN.shape[1]):
        correct_CN = outcomes.correct_CSN[:, seed]
        if chooser == "random":
            per_seed.append(random_choice(correct_CN, n))
        elif chooser == "perfect":
            per_seed.append(perfect_judge(correct_CN, n))
        else:
            per_seed.append(best_of_n(correct_CN, outcomes.score_CSN[chooser][:, seed], n))
    averaged: np.ndarray = np.mean(per_seed, axis=0)
    return averaged


def best_of_n_table(outcomes: Outcomes, verifier: str, ns: list[int]) -> list[dict[str, Any]]:
    """One row for each N and chooser: micro and macro averages and every task, each with its 95 % interval."""
    return [
        {"n": n, "chosen_by": chooser, **averages(outcomes.descriptions, chooser_outcomes(outcomes, name, n))}
        for n in ns
        for chooser, name in (("verifier", verifier), ("random", "random"), ("perfect judge", "perfect"))
    ]


def distance_closed_by(outcomes: Outcomes, verifier: str, n: int) -> Figure:
    """(verifier's Best-of-n - candidate 0) / (perfect judge's Best-of-n - candidate 0), with its interval."""
    columns = [
        chooser_outcomes(outcomes, verifier, n),
        chooser_outcomes(outcomes, "random", 1),
        chooser_outcomes(outcomes, "perfect", n),
    ]
    return figure(outcomes, distance_closed, columns)


def ranking_figures(outcomes: Outcomes, verifier: str) -> dict[str, Any]:
    """Pooled AUROC, pair accuracy inside a case, calibration error, and how often the best score is tied."""
    candidates = outcomes.correct_CSN.shape[2]
    correct_RN = outcomes.correct_CSN.reshape(-1, candidates)
    score_RN = outcomes.score_CSN[verifier].reshape(-1, candidates)
    probability = outcomes.probability_CSN[verifier].ravel()
    best_R1 = score_RN.max(axis=1, keepdims=True)
    return {
        "auroc": area_under_roc(correct_RN, score_RN),
        "pair_accuracy": pair_accuracy_of(outcomes, [verifier]),
        "expected_calibration_error": expected_calibration_error(probability, correct_RN.ravel()),
        "ties": float(((score_RN == best_R1).sum(axis=1) > 1).mean()),
    }


def pair_accuracy_of(outcomes: Outcomes, verifiers: Sequence[str]) -> Figure:
    """The share of pairs inside a case and seed that these verifiers order rightly, with its interval."""
    candidates, by_case = outcomes.correct_CSN.shape[2], (len(outcomes.descriptions), -1)
    correct_RN = outcomes.correct_CSN.reshape(-1, candidates)
    counted = [pair_wins(correct_RN, outcomes.score_CSN[name].reshape(-1, candidates)) for name in verifiers]
    columns = [np.mean([parts[at].reshape(by_case).mean(1) for parts in counted], axis=0) for at in (0, 1)]
    return figure(outcomes, _share, columns)


def averages(descriptions: Sequence[Description], outcome_C: np.ndarray) -> dict[str, Figure]:
    """Micro (over cases) and macro (over tasks) average and every task's, each with its 95 % interval."""
    prompts, tasks = zip(*((description.prompt, description.tag) for description in descriptions), strict=True)
    return task_figures.averages(prompts, tasks, outcome_C)


def figure(outcomes: Outcomes, statistic: Callable[..., np.ndarray], columns: list[np.ndarray]) -> Figure:
    """A statistic of the means of columns over cases, with its 95 % interval."""
    return task_figures.figure(statistic, [description.prompt for description in outcomes.descriptions], *columns)


def _share(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    return np.divide(part, whole, out=np.full(np.shape(whole), np.nan), where=whole != 0)
