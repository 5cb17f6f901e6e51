"""All figures of an evaluation, in one dictionary that JSON can hold."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import BaseModel, ConfigDict

from forejudge.candidates.store import EvaluationSettings, EvaluationStore
from forejudge.config_files import read_config
from forejudge.errors import CheckpointError
from forejudge.evaluation.bootstrap import Difference, Interval, IntervalDict, bootstrap_figure, bootstrap_mean
from forejudge.evaluation.intervals import (
    oracle_gap_closed_interval,
    outcome_averages,
    paired_difference,
    ranking_metrics,
)
from forejudge.evaluation.metrics import BoolArray, FloatArray
from forejudge.evaluation.strategies import (
    Outcomes,
    ScoreFunction,
    SelectionStrategy,
    best_score_strategy,
    load_outcomes,
    mean_rank,
    oracle_strategy,
    random_strategy,
    tie_rate,
    verifier_scores,
    weighted_sum,
)
from forejudge.profiling.searches import SearchCosts

FIGURES_FILE = "figures.json"


class SuiteCosts(BaseModel):
    """By name: what searches with each verifier cost, milliseconds of each plain picture, FLOPs of each stage."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    provenance: dict[str, str]
    searches: dict[str, SearchCosts]
    baseline_ms: dict[str, float]
    stage_flops: dict[str, int]


# FOLDED: What a second evaluator says of the same pictures: does it agree, and does what a verifier gains last before it?
#
# A verifier that has learnt the quirks of the evaluator that labelled for it gains by that evaluator alone.
# Shapes: C cases, S seeds, N candidates.


FIRST_EVALUATOR = "first evaluator"


def second_evaluator_metrics(
    outcomes: Outcomes, strategies: Mapping[str, SelectionStrategy], ns: Sequence[int]
) -> dict[str, dict[str, Any]]:
    """By the second evaluator's name its agreement with the first, and Best-of-N by chooser as it judges it (micro).

    A perfect judge among the choosers is then one that knows the second evaluator's mind; one that knows the first's
    is beside it.
    """
    every = {**strategies, FIRST_EVALUATOR: _first_evaluator(outcomes)}
    return {
        name: {
            **agreement(outcomes.prompts, outcomes.correct_CSN, second_CSN),
            "best_of_n": _best_of_n(replace(outcomes, correct_CSN=second_CSN), every, ns),
        }
        for name, second_CSN in outcomes.second_correct_CSN.items()
    }


def agreement(prompts: Sequence[str], one_CSN: BoolArray, other_CSN: BoolArray) -> dict[str, IntervalDict]:
    """The share of candidates judged alike, and Cohen's kappa (1960), nan where both call all of them right or wrong.

    Both over candidates, with intervals over prompts.
    """
    columns = [said.mean(axis=(1, 2)) for said in (one_CSN == other_CSN, one_CSN, other_CSN)]
    return {
        "agreement": bootstrap_mean(prompts, columns[0]),
        "cohens_kappa": bootstrap_figure(_kappa, prompts, *columns),
    }


def _kappa(agreed: FloatArray, one: FloatArray, other: FloatArray) -> FloatArray:
    """(observed - by chance) / (1 - by chance), of the shares that are judged alike, and right by each."""
    by_chance = one * other + (1 - one) * (1 - other)
    return np.divide(agreed - by_chance, 1 - by_chance, out=np.full(np.shape(agreed), np.nan), where=by_chance < 1)


def _first_evaluator(outcomes: Outcomes) -> SelectionStrategy:
    """Picks what the first evaluator calls right: what no verifier that is trained on it is meant to exceed."""
    return best_score_strategy(lambda _, n: outcomes.correct_CSN[..., :n].astype(np.float64))


def _best_of_n(
    second_outcomes: Outcomes, strategies: Mapping[str, SelectionStrategy], ns: Sequence[int]
) -> list[dict[str, Any]]:
    return [
        {"n": n, "strategy": name, "micro": bootstrap_mean(second_outcomes.prompts, strategy(second_outcomes, n))}
        for n in ns
        for name, strategy in strategies.items()
    ]


# FOLDED: What a finished evaluation's folder holds, read and checked.


class _FrozenModel(BaseModel):
    model_config = ConfigDict(frozen=True)


class Averages(_FrozenModel):
    """Shares of right pictures in [0, 1]: over cases (micro), over tasks (macro), and of each task with cases."""

    micro: Interval
    macro: Interval
    single_object: Interval | None = None
    two_object: Interval | None = None
    counting: Interval | None = None
    colors: Interval | None = None
    position: Interval | None = None
    color_attr: Interval | None = None


class BestOfNRow(Averages):
    """What somebody reaches who chooses among `n`."""

    strategy: str
    n: int


class EqualCostRow(BestOfNRow):
    """And within a budget, in the unit of its table."""

    budget: float
    steps: int
    reference_lead: Difference


class Ranking(_FrozenModel):
    """How well a verifier orders candidates. Beside these fields: its `oracle_gap_closed_at_N`."""

    model_config = ConfigDict(extra="allow")
    __pydantic_extra__: dict[str, Interval]

    auroc: float
    pair_accuracy: Interval
    expected_calibration_error: float | None
    tie_rate: float


class EvaluationMetrics(_FrozenModel):
    """What `forejudge eval` writes to figures.json, as far as the page shows it."""

    provenance: dict[str, str]
    settings: EvaluationSettings
    test_cases: int
    distinct_prompts: int
    seeds: int
    best_of_n: list[BestOfNRow]
    verifiers: dict[str, Ranking]
    baselines: dict[str, Averages]
    costs: SuiteCosts
    equal_time: list[EqualCostRow]
    equal_projected_cost: list[EqualCostRow] = []

    def by_strategy(self) -> Mapping[str, list[BestOfNRow]]:
        """Best-of-N of each chooser, N rising."""
        names = dict.fromkeys(row.strategy for row in self.best_of_n)
        rows = sorted(self.best_of_n, key=lambda row: row.n)
        return {name: [row for row in rows if row.strategy == name] for name in names}


@dataclass(frozen=True)
class LayerResult:
    """What a verifier reaches with Best-of-8 that reads after `num_prefix_blocks` blocks."""

    num_prefix_blocks: int
    micro: Interval


@dataclass(frozen=True)
class Contents:
    """An evaluation: its folder, its figures, and what was drawn as arrays."""

    folder: EvaluationStore
    metrics: EvaluationMetrics
    outcomes: Outcomes

    @classmethod
    def read(cls, path: Path) -> "Contents":
        """Raises CheckpointError for a folder that is no evaluation, is not finished or cannot be read."""
        folder = EvaluationStore(path)
        outcomes, metrics = load_outcomes(folder), read_config(path / FIGURES_FILE, EvaluationMetrics)
        if metrics.settings != folder.settings:
            raise CheckpointError(
                f"{path / FIGURES_FILE} is of another evaluation: run `forejudge eval` on {path} again"
            )
        return cls(folder, metrics, outcomes)


class _Variant(_FrozenModel):
    reads: str
    best_of_8: Interval


class _Study(_FrozenModel):
    variants: dict[str, _Variant]


def read_layers(path: Path) -> list[LayerResult]:
    """From what `forejudge study layers` writes, cuts rising. Raises CheckpointError."""
    every = read_config(path, _Study).variants.values()
    blocks_and_intervals = [(variant.reads.removeprefix("hidden:"), variant.best_of_8) for variant in every]
    return sorted(
        (
            LayerResult(int(num_prefix_blocks), interval)
            for num_prefix_blocks, interval in blocks_and_intervals
            if num_prefix_blocks.isdecimal()
        ),
        key=lambda layer: layer.num_prefix_blocks,
    )


RANDOM, ORACLE = "random", "oracle"
GAP_CLOSED_AT_N = 8  # the N at which the distance closed is reported

VerifierWeights = Mapping[str, float]
"""Verifiers to be combined, by name, each with the weight of its log-odds."""


def combination_score_functions(every: Sequence[VerifierWeights]) -> dict[str, ScoreFunction]:
    """Each combination in two ways, by name: the mean of ranks, and the weighted sum of log-odds."""
    by_name: dict[str, ScoreFunction] = {}
    for weights in every:
        by_name[f"mean rank of {', '.join(weights)}"] = mean_rank(list(weights))
        said = ", ".join(name if weight == 1 else f"{weight:g} {name}" for name, weight in weights.items())
        by_name[f"log-odds of {said}"] = weighted_sum(weights)
    return by_name


def selection_strategies(score_functions: Mapping[str, ScoreFunction]) -> dict[str, SelectionStrategy]:
    """Whoever chooses by scores, then chance and the perfect judge."""
    return {name: best_score_strategy(score_function) for name, score_function in score_functions.items()} | {
        RANDOM: random_strategy,
        ORACLE: oracle_strategy,
    }


def evaluation_metrics(
    outcomes: Outcomes, ns: Sequence[int], combined: Sequence[VerifierWeights] = ()
) -> dict[str, Any]:
    """Best-of-N by chooser and N, how far the first verifier is ahead of the others, and each verifier's ranking.

    Then the same Best-of-N as each second evaluator judges it.
    """
    combinations = combination_score_functions(combined)
    strategies = selection_strategies({name: verifier_scores(name) for name in outcomes.score_CSN} | combinations)
    return {
        "test_cases": len(outcomes.prompts),
        "distinct_prompts": len(set(outcomes.prompts)),
        "seeds": outcomes.correct_CSN.shape[1],
        "candidates": outcomes.candidates,
        "best_of_n": [
            {"n": n, "strategy": name, **outcome_averages(outcomes, strategy(outcomes, n))}
            for n in ns
            for name, strategy in strategies.items()
        ],
        "differences": _differences(outcomes, strategies, ns),
        "verifiers": {name: verifier_summary(outcomes, name) for name in outcomes.score_CSN},
        "combination_tie_rates": {
            name: tie_rate(score_functions, outcomes, outcomes.candidates)
            for name, score_functions in combinations.items()
        },
        "second_evaluators": second_evaluator_metrics(outcomes, strategies, ns),
    }


def verifier_summary(outcomes: Outcomes, name: str) -> dict[str, Any]:
    """How much of the distance to the perfect judge it closes, and how well it ranks."""
    n = min(GAP_CLOSED_AT_N, outcomes.candidates)
    return {
        f"oracle_gap_closed_at_{n}": oracle_gap_closed_interval(outcomes, [name], n),
        **ranking_metrics(outcomes, name),
    }


def _differences(
    outcomes: Outcomes, strategies: Mapping[str, SelectionStrategy], ns: Sequence[int]
) -> list[dict[str, Any]]:
    """How far the first of the choosers is ahead of each other one with as many candidates."""
    first, *others = strategies
    return [
        {
            "n": n,
            "first": first,
            "other": other,
            **paired_difference(outcomes, *(strategies[c](outcomes, n) for c in (first, other))),
        }
        for n in ns
        if n > 1
        for other in others
    ]
