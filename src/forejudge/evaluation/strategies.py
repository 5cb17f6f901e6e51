"""Outcomes of an evaluation as arrays, and the selection strategies that are compared on them.

A strategy picks one of the first n candidates of a case from scores of these n alone, as a search that ended there
would; ties go to the earlier candidate.

Shapes: C cases (a prompt and one of its images), S seeds, N candidates in the order they were generated.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from forejudge.candidates.evaluation_store import EvaluationRow, EvaluationStore
from forejudge.evaluation.bootstrap import Averages, Difference, Outcome, bootstrap_averages, paired_difference
from forejudge.evaluation.metrics import BoolArray, FloatArray, best_of_n, oracle_choice, random_choice
from forejudge.prompts.geneval import TASKS, Task


@dataclass(frozen=True)
class Outcomes:
    """Correctness of every candidate, and the scores and probabilities of each verifier by its name.

    `prompts` and `tasks` have one entry per case. Verifiers without calibration have no probabilities.
    `second_correct_CSN` holds the verdicts of second evaluators on the same images, by their names.
    `second_step_correct_CSN` says by 1 and 0 whether images after a second step are right, and is nan where that was
    not recorded; `second_step_second_correct_CSN` holds what second evaluators say of them.
    """

    prompts: Sequence[str]
    tasks: Sequence[str]
    correct_CSN: BoolArray
    score_CSN: Mapping[str, FloatArray]
    probability_CSN: Mapping[str, FloatArray]
    second_correct_CSN: Mapping[str, BoolArray] = field(default_factory=dict)
    second_step_correct_CSN: FloatArray | None = None
    second_step_second_correct_CSN: Mapping[str, FloatArray] = field(default_factory=dict)

    @property
    def candidates(self) -> int:
        """Candidates per case and seed."""
        return int(self.correct_CSN.shape[2])

    def averages(self, outcome: Outcome) -> Averages:
        """Average outcomes per case over cases, over tasks and within each task."""
        return bootstrap_averages(self.prompts, self.tasks, outcome)

    def lead(self, one: Outcome, other: Outcome) -> Difference:
        """Return how far the micro average of one outcome is ahead of another's, paired."""
        return paired_difference(self.prompts, one, other)

    def task_leads(self, one_C: FloatArray, other_C: FloatArray) -> dict[Task, Difference]:
        """Return how far one outcome is ahead of another's within each task that has cases, paired."""
        prompt_C, task_C = np.array(self.prompts), np.array(self.tasks)
        of_task = {task: np.flatnonzero(task_C == task) for task in TASKS if task in task_C}
        return {task: paired_difference(prompt_C[rows], one_C[rows], other_C[rows]) for task, rows in of_task.items()}


def load_outcomes(folder: EvaluationStore) -> Outcomes:
    """Read a finished folder. Raises CheckpointError for one that isn't finished or can't be read."""
    folder.check_complete()
    settings = folder.settings
    rows = [row for prompt in range(settings.prompts) for row in sorted(folder.rows(prompt), key=_place)]
    shape = settings.prompts * settings.images_per_prompt, settings.seeds, settings.candidates
    metadata = [folder.metadata(prompt) for prompt in range(settings.prompts)]
    cases = [prompt for prompt in metadata for _ in range(settings.images_per_prompt)]

    def verdict_values(name: str, field: Literal["score", "probability"]) -> FloatArray:
        return np.array([row["verdicts"][name][field] for row in rows], dtype=np.float64).reshape(shape)

    def second_steps(correct: Sequence[bool | None]) -> FloatArray:
        return np.array(correct, dtype=np.float64).reshape(shape)  # None becomes nan

    calibrated = [
        name for name in settings.verifiers if all(row["verdicts"][name]["probability"] is not None for row in rows)
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
        second_step_correct_CSN=second_steps([row["second_step_correct"] for row in rows])
        if settings.second_step
        else None,
        second_step_second_correct_CSN={
            name: second_steps([(row["second_step_second_correct"] or {}).get(name) for row in rows])
            for name in settings.second_evaluators * settings.second_step
        },
    )


def _place(row: EvaluationRow) -> tuple[int, int, int]:
    return row["image_index"], row["seed_index"], row["index"]


SelectionStrategy = Callable[[Outcomes, int], FloatArray]
"""(outcomes, n) -> (C,): the share in [0, 1] of the seeds at which the pick among the first n is right."""

ScoreFunction = Callable[[Outcomes, int], FloatArray]
"""(outcomes, n) -> (C, S, n): the scores by which the first n are ordered."""


def random_strategy(outcomes: Outcomes, n: int) -> FloatArray:
    """Pick blindly: the expected outcome."""
    return _mean_over_seeds(outcomes, lambda seed: random_choice(outcomes.correct_CSN[:, seed], n))


def oracle_strategy(outcomes: Outcomes, n: int) -> FloatArray:
    """Pick a right candidate wherever there is one."""
    return _mean_over_seeds(outcomes, lambda seed: oracle_choice(outcomes.correct_CSN[:, seed], n))


def best_score_strategy(scores: ScoreFunction) -> SelectionStrategy:
    """Return the strategy that picks the highest score."""

    def strategy(outcomes: Outcomes, n: int) -> FloatArray:
        score_CSN = scores(outcomes, n)
        return _mean_over_seeds(
            outcomes, lambda seed: best_of_n(outcomes.correct_CSN[:, seed, :n], score_CSN[:, seed], n)
        )

    return strategy


def verifier_scores(name: str) -> ScoreFunction:
    """Return the scores of one verifier."""
    return lambda outcomes, n: outcomes.score_CSN[name][..., :n]


def mean_rank(names: Sequence[str]) -> ScoreFunction:
    """Return minus the mean rank over several verifiers, independent of their scales; ties share their mean rank."""

    def scores(outcomes: Outcomes, n: int) -> FloatArray:
        ranks = [_ranks(outcomes.score_CSN[name][..., :n]) for name in names]
        averaged: FloatArray = -np.mean(ranks, axis=0)
        return averaged

    return scores


def weighted_sum(weights: Mapping[str, float]) -> ScoreFunction:
    """Return the weighted sum of several verifiers' scores; for log-odds, as if they were independent evidence."""

    def scores(outcomes: Outcomes, n: int) -> FloatArray:
        parts = [weight * outcomes.score_CSN[name][..., :n] for name, weight in weights.items()]
        summed: FloatArray = np.sum(parts, axis=0)
        return summed

    return scores


def tie_rate(scores: ScoreFunction, outcomes: Outcomes, n: int) -> float:
    """Return the share of cases in [0, 1] where several of the first n have the highest score."""
    score_CSN = scores(outcomes, n)
    best_CS1 = score_CSN.max(axis=-1, keepdims=True)
    return float(((score_CSN == best_CS1).sum(axis=-1) > 1).mean())


def _ranks(score_CSN: FloatArray) -> FloatArray:
    """Rank along the last axis, 0 for the highest; ties share the mean of their places."""
    below_CSNN = score_CSN[..., :, None] < score_CSN[..., None, :]
    equal_CSNN = score_CSN[..., :, None] == score_CSN[..., None, :]
    ranks: FloatArray = below_CSNN.sum(axis=-1) + (equal_CSNN.sum(axis=-1) - 1) / 2
    return ranks


def _mean_over_seeds(outcomes: Outcomes, for_seed: Callable[[int], FloatArray]) -> FloatArray:
    averaged: FloatArray = np.mean([for_seed(seed) for seed in range(outcomes.correct_CSN.shape[1])], axis=0)
    return averaged
