"""All figures of an evaluation, in one dictionary that JSON can hold."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import BaseModel, ConfigDict

from forejudge.candidates.store import EvaluationFolder, EvaluationSettings
from forejudge.checkpoint import read_config
from forejudge.errors import CheckpointError
from forejudge.evaluation.bootstrap import Difference, Figure, Interval, figure, mean_figure
from forejudge.evaluation.intervals import averages_of, difference, distance_closed_by, ranking_figures
from forejudge.evaluation.metrics import BoolArray, FloatArray
from forejudge.evaluation.strategies import (
    Chooser,
    Outcomes,
    Scores,
    at_random,
    choosing_by,
    mean_rank,
    outcomes_of,
    perfect,
    share_of_ties,
    verifier_scores,
    weighted_sum,
)
from forejudge.profiling.searches import SearchCosts

FIGURES_FILE = "figures.json"


class Costs(BaseModel):
    """By name: what searches with each verifier cost, milliseconds of each plain picture, FLOPs of each stage."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    made: dict[str, str]
    searches: dict[str, SearchCosts]
    plain_milliseconds: dict[str, float]
    stage_flops: dict[str, int]


# FOLDED: What a second evaluator says of the same pictures: does it agree, and does what a verifier gains last before it?
#
# A verifier that has learnt the quirks of the evaluator that labelled for it gains by that evaluator alone.
# Shapes: C cases, S seeds, N candidates.


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


# FOLDED: What a finished evaluation's folder holds, read and checked.


class _Read(BaseModel):
    model_config = ConfigDict(frozen=True)


class Averages(_Read):
    """Shares of right pictures in [0, 1]: over cases (micro), over tasks (macro), and of each task with cases."""

    micro: Interval
    macro: Interval
    single_object: Interval | None = None
    two_object: Interval | None = None
    counting: Interval | None = None
    colors: Interval | None = None
    position: Interval | None = None
    color_attr: Interval | None = None


class ChosenAmong(Averages):
    """What somebody reaches who chooses among `n`."""

    chosen_by: str
    n: int


class EqualCost(ChosenAmong):
    """And within a budget, in the unit of its table."""

    budget: float
    steps: int
    reference_ahead_by: Difference


class Ranking(_Read):
    """How well a verifier orders candidates. Beside these fields: its `distance_closed_at_N`."""

    model_config = ConfigDict(extra="allow")
    __pydantic_extra__: dict[str, Interval]

    auroc: float
    pair_accuracy: Interval
    expected_calibration_error: float | None
    ties: float


class Figures(_Read):
    """What `forejudge eval` writes to figures.json, as far as the page shows it."""

    made: dict[str, str]
    settings: EvaluationSettings
    test_cases: int
    distinct_prompts: int
    seeds: int
    best_of_n: list[ChosenAmong]
    verifiers: dict[str, Ranking]
    plain: dict[str, Averages]
    costs: Costs
    equal_time: list[EqualCost]
    equal_work: list[EqualCost] = []

    def by_chooser(self) -> Mapping[str, list[ChosenAmong]]:
        """Best-of-N of each chooser, N rising."""
        names = dict.fromkeys(row.chosen_by for row in self.best_of_n)
        rows = sorted(self.best_of_n, key=lambda row: row.n)
        return {name: [row for row in rows if row.chosen_by == name] for name in names}


@dataclass(frozen=True)
class Layer:
    """What a verifier reaches with Best-of-8 that reads after `cut` blocks."""

    cut: int
    micro: Interval


@dataclass(frozen=True)
class Contents:
    """An evaluation: its folder, its figures, and what was drawn as arrays."""

    folder: EvaluationFolder
    figures: Figures
    outcomes: Outcomes

    @classmethod
    def read(cls, path: Path) -> "Contents":
        """Raises CheckpointError for a folder that is no evaluation, is not finished or cannot be read."""
        folder = EvaluationFolder(path)
        outcomes, figures = outcomes_of(folder), read_config(path / FIGURES_FILE, Figures)
        if figures.settings != folder.settings:
            raise CheckpointError(
                f"{path / FIGURES_FILE} is of another evaluation: run `forejudge eval` on {path} again"
            )
        return cls(folder, figures, outcomes)


class _Variant(_Read):
    reads: str
    best_of_8: Interval


class _Study(_Read):
    variants: dict[str, _Variant]


def read_layers(path: Path) -> list[Layer]:
    """From what `forejudge study layers` writes, cuts rising. Raises CheckpointError."""
    every = read_config(path, _Study).variants.values()
    cuts = [(variant.reads.removeprefix("hidden:"), variant.best_of_8) for variant in every]
    return sorted((Layer(int(cut), reached) for cut, reached in cuts if cut.isdecimal()), key=lambda layer: layer.cut)


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
