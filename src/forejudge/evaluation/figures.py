"""All figures of an evaluation, in one dictionary that JSON can hold."""

from collections.abc import Mapping, Sequence
from typing import Any

from forejudge.evaluation.choosers import (
    Chooser,
    Scores,
    at_random,
    choosing_by,
    mean_rank,
    perfect,
    share_of_ties,
    verifier_scores,
    weighted_sum,
)
from forejudge.evaluation.intervals import averages_of, difference, distance_closed_by, ranking_figures
from forejudge.evaluation.outcomes import Outcomes
from forejudge.evaluation.second_evaluators import second_evaluator_figures

RANDOM, PERFECT = "random", "perfect judge"
CLOSED_AT = 8  # the N at which the distance closed is reported

Weights = Mapping[str, float]
"""Verifiers to be combined, by name, each with the weight of its log-odds."""


def combinations_of(every: Sequence[Weights]) -> dict[str, Scores]:
    """Each combination in two ways, by name: the mean of ranks, and the weighted sum of log-odds."""
    by_name: dict[str, Scores] = {}
    for weights in every:
        by_name[f"mean rank of {', '.join(weights)}"] = mean_rank(list(weights))
        said = ", ".join(name if weight == 1 else f"{weight:g} {name}" for name, weight in weights.items())
        by_name[f"log-odds of {said}"] = weighted_sum(weights)
    return by_name


def choosers_of(scores: Mapping[str, Scores]) -> dict[str, Chooser]:
    """Whoever chooses by scores, then chance and the perfect judge."""
    return {name: choosing_by(ordered) for name, ordered in scores.items()} | {RANDOM: at_random, PERFECT: perfect}


def evaluation_figures(outcomes: Outcomes, ns: Sequence[int], combined: Sequence[Weights] = ()) -> dict[str, Any]:
    """Best-of-N by chooser and N, how far the first verifier is ahead of the others, and each verifier's ranking.

    Then the same Best-of-N as each second evaluator judges it.
    """
    combinations = combinations_of(combined)
    choosers = choosers_of({name: verifier_scores(name) for name in outcomes.score_CSN} | combinations)
    return {
        "test_cases": len(outcomes.prompts),
        "distinct_prompts": len(set(outcomes.prompts)),
        "seeds": outcomes.correct_CSN.shape[1],
        "candidates": outcomes.candidates,
        "best_of_n": [
            {"n": n, "chosen_by": name, **averages_of(outcomes, chooser(outcomes, n))}
            for n in ns
            for name, chooser in choosers.items()
        ],
        "differences": _differences(outcomes, choosers, ns),
        "verifiers": {name: verifier_figures(outcomes, name) for name in outcomes.score_CSN},
        "ties_of_combinations": {
            name: share_of_ties(scores, outcomes, outcomes.candidates) for name, scores in combinations.items()
        },
        "second_evaluators": second_evaluator_figures(outcomes, choosers, ns),
    }


def verifier_figures(outcomes: Outcomes, name: str) -> dict[str, Any]:
    """How much of the distance to the perfect judge it closes, and how well it ranks."""
    n = min(CLOSED_AT, outcomes.candidates)
    return {f"distance_closed_at_{n}": distance_closed_by(outcomes, [name], n), **ranking_figures(outcomes, name)}


def _differences(outcomes: Outcomes, choosers: Mapping[str, Chooser], ns: Sequence[int]) -> list[dict[str, Any]]:
    """How far the first of the choosers is ahead of each other one with as many candidates."""
    first, *others = choosers
    return [
        {
            "n": n,
            "first": first,
            "other": other,
            **difference(outcomes, *(choosers[c](outcomes, n) for c in (first, other))),
        }
        for n in ns
        if n > 1
        for other in others
    ]
