"""Who picks one of the first n candidates: a verifier, several together, chance, or a judge that knows.

Every pick is a function of scores of these n alone, as it would be in a search that ended there. Of equals the one
drawn first is picked.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from forejudge.candidates.store import EvaluationStore
from forejudge.evaluation.metrics import BoolArray, FloatArray, best_of_n, oracle_choice, random_choice
from forejudge.prompts.geneval import PromptMetadata

# FOLDED: What was drawn for a benchmark, as arrays: who is right, and what every verifier said.
#
# Shapes: C cases (a prompt and one of its images), S seeds, N candidates in the order in which they were drawn.


@dataclass(frozen=True)
class Outcomes:
    """`correct_CSN` says whether each finished picture is right; scores and probabilities go by the verifier's name.

    `prompts` and `tasks` have one entry a case. A verifier without calibration has no probabilities. `second_correct_CSN`
    is what second evaluators say of the same pictures, by their names.
    """

    prompts: Sequence[str]
    tasks: Sequence[str]
    correct_CSN: BoolArray
    score_CSN: Mapping[str, FloatArray]
    probability_CSN: Mapping[str, FloatArray]
    second_correct_CSN: Mapping[str, BoolArray] = field(default_factory=dict)

    @property
    def candidates(self) -> int:
        """How many were drawn of each case and seed."""
        return int(self.correct_CSN.shape[2])


def load_outcomes(folder: EvaluationStore) -> Outcomes:
    """A finished folder as arrays. Raises CheckpointError for one that is not finished or cannot be read."""
    folder.check_complete()
    settings = folder.settings
    rows = [row for prompt in range(settings.prompts) for row in _sort_by_image(folder.rows(prompt))]
    shape = settings.prompts * settings.images_per_prompt, settings.seeds, settings.candidates
    metadata = [PromptMetadata.from_line(folder.metadata(prompt)) for prompt in range(settings.prompts)]
    cases = [prompt for prompt in metadata for _ in range(settings.images_per_prompt)]

    def verdict_values(name: str, field: str) -> FloatArray:
        return np.array([row["verdicts"][name][field] for row in rows], dtype=np.float64).reshape(shape)

    calibrated = [
        name for name, verdict_values in rows[0]["verdicts"].items() if verdict_values["probability"] is not None
    ]
    return Outcomes(
        prompts=[case.prompt for case in cases],
        tasks=[case.tag for case in cases],
        correct_CSN=np.array([row["correct"] for row in rows], dtype=np.bool_).reshape(shape),
        score_CSN={name: verdict_values(name, "score") for name in settings.verifiers},
        probability_CSN={name: verdict_values(name, "probability") for name in calibrated},
        second_correct_CSN={
            name: np.array([row["second_correct"][name] for row in rows], dtype=np.bool_).reshape(shape)
            for name in settings.second_evaluators
        },
    )


def _sort_by_image(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Image by image, in each seed by seed."""
    return sorted(rows, key=lambda row: (row["image_index"], row["seed_index"], row["index"]))


SelectionStrategy = Callable[[Outcomes, int], FloatArray]
"""(outcomes, n) -> per case, averaged over seeds, how often the pick among the first n is right, in [0, 1]."""

ScoreFunction = Callable[[Outcomes, int], FloatArray]
"""(outcomes, n) -> what the first n are ordered by, (C, S, n)."""


def random_strategy(outcomes: Outcomes, n: int) -> FloatArray:
    """A blind choice."""
    return _mean_over_seeds(outcomes, lambda seed: random_choice(outcomes.correct_CSN[:, seed], n))


def oracle_strategy(outcomes: Outcomes, n: int) -> FloatArray:
    """A judge that knows: right if any of them is."""
    return _mean_over_seeds(outcomes, lambda seed: oracle_choice(outcomes.correct_CSN[:, seed], n))


def best_score_strategy(scores: ScoreFunction) -> SelectionStrategy:
    """The one of highest score."""

    def strategy(outcomes: Outcomes, n: int) -> FloatArray:
        score_CSN = scores(outcomes, n)
        return _mean_over_seeds(
            outcomes, lambda seed: best_of_n(outcomes.correct_CSN[:, seed, :n], score_CSN[:, seed], n)
        )

    return strategy


def verifier_scores(name: str) -> ScoreFunction:
    """What one verifier says."""
    return lambda outcomes, n: outcomes.score_CSN[name][..., :n]


def mean_rank(names: Sequence[str]) -> ScoreFunction:
    """Minus the mean of the ranks that several verifiers give, whatever their scales; equals share their mean rank."""

    def scores(outcomes: Outcomes, n: int) -> FloatArray:
        ranks = [_ranks(outcomes.score_CSN[name][..., :n]) for name in names]
        averaged: FloatArray = -np.mean(ranks, axis=0)
        return averaged

    return scores


def weighted_sum(weights: Mapping[str, float]) -> ScoreFunction:
    """The weighted sum of what several verifiers say: of log-odds, as if they were independent witnesses."""

    def scores(outcomes: Outcomes, n: int) -> FloatArray:
        parts = [weight * outcomes.score_CSN[name][..., :n] for name, weight in weights.items()]
        summed: FloatArray = np.sum(parts, axis=0)
        return summed

    return scores


def tie_rate(scores: ScoreFunction, outcomes: Outcomes, n: int) -> float:
    """How often more than one of the first n has the highest score, in [0, 1]."""
    score_CSN = scores(outcomes, n)
    best_CS1 = score_CSN.max(axis=-1, keepdims=True)
    return float(((score_CSN == best_CS1).sum(axis=-1) > 1).mean())


def _ranks(score_CSN: FloatArray) -> FloatArray:
    """0 for the highest along the last axis; equals share the mean of their places."""
    below_CSNN = score_CSN[..., :, None] < score_CSN[..., None, :]
    equal_CSNN = score_CSN[..., :, None] == score_CSN[..., None, :]
    ranks: FloatArray = below_CSNN.sum(axis=-1) + (equal_CSNN.sum(axis=-1) - 1) / 2
    return ranks


def _mean_over_seeds(outcomes: Outcomes, for_seed: Callable[[int], FloatArray]) -> NDArray[np.float64]:
    averaged: FloatArray = np.mean([for_seed(seed) for seed in range(outcomes.correct_CSN.shape[1])], axis=0)
    return averaged
