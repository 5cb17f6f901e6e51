"""What a second evaluator says of the same pictures: does it agree, and does what a verifier gains last before it?

A verifier that has learnt the quirks of the evaluator that labelled for it gains by that evaluator alone.
Shapes: C cases, S seeds, N candidates.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from forejudge.evaluation.best_of_n import BoolArray, FloatArray
from forejudge.evaluation.choosers import Chooser, choosing_by
from forejudge.evaluation.outcomes import Outcomes
from forejudge.evaluation.task_figures import Figure, figure, mean_figure

FIRST = "first evaluator"


def second_evaluator_figures(
    outcomes: Outcomes, choosers: Mapping[str, Chooser], ns: Sequence[int]
) -> dict[str, dict[str, Any]]:
    """By the second evaluator's name its agreement with the first, and Best-of-N by chooser as it judges it (micro).

    A perfect judge among the choosers is then one that knows the second evaluator's mind; one that knows the first's
    is beside it.
    """
    every = {**choosers, FIRST: _first_evaluator(outcomes)}
    return {
        name: {
            **agreement(outcomes.prompts, outcomes.correct_CSN, also_CSN),
            "best_of_n": _best_of_n(replace(outcomes, correct_CSN=also_CSN), every, ns),
        }
        for name, also_CSN in outcomes.also_correct_CSN.items()
    }


def agreement(prompts: Sequence[str], one_CSN: BoolArray, other_CSN: BoolArray) -> dict[str, Figure]:
    """The share of candidates judged alike, and Cohen's kappa (1960), nan where both call all of them right or wrong.

    Both over candidates, with intervals over prompts.
    """
    columns = [said.mean(axis=(1, 2)) for said in (one_CSN == other_CSN, one_CSN, other_CSN)]
    return {"agreement": mean_figure(prompts, columns[0]), "cohens_kappa": figure(_kappa, prompts, *columns)}


def _kappa(alike: FloatArray, one: FloatArray, other: FloatArray) -> FloatArray:
    """(observed - by chance) / (1 - by chance), of the shares that are judged alike, and right by each."""
    by_chance = one * other + (1 - one) * (1 - other)
    return np.divide(alike - by_chance, 1 - by_chance, out=np.full(np.shape(alike), np.nan), where=by_chance < 1)


def _first_evaluator(outcomes: Outcomes) -> Chooser:
    """Picks what the first evaluator calls right: what no verifier that is trained on it is meant to exceed."""
    return choosing_by(lambda _, n: outcomes.correct_CSN[..., :n].astype(np.float64))


def _best_of_n(judged: Outcomes, choosers: Mapping[str, Chooser], ns: Sequence[int]) -> list[dict[str, Any]]:
    return [
        {"n": n, "chosen_by": name, "micro": mean_figure(judged.prompts, chooser(judged, n))}
        for n in ns
        for name, chooser in choosers.items()
    ]
