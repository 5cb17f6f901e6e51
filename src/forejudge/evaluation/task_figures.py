"""Shares of right pictures over all tasks and by task, each with its interval, ready for JSON."""

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import ArrayLike

from forejudge.evaluation.bootstrap import FloatArray, bootstrap_interval
from forejudge.evaluation.metadata import TASKS

Figure = dict[str, float]
"""estimate, low and high: a figure and its 95 % interval."""


def averages(prompts: Sequence[str], tasks: Sequence[str], outcome_C: ArrayLike) -> dict[str, Figure]:
    """Micro (over cases) and macro (over tasks) average and that of every task that has cases.

    `outcome_C` says of each case in [0, 1] how right it is; `prompts` and `tasks` say whose cases they are.
    """
    prompt_C, task_C, values_C = np.array(prompts), np.array(tasks), np.asarray(outcome_C, float)
    figures = {
        "micro": mean_figure(prompt_C, values_C),
        "macro": figure(_itself, prompt_C, values_C, tasks=task_C),
    }
    cases = {task: task_C == task for task in TASKS if task in task_C}
    return figures | {task: mean_figure(prompt_C[at], values_C[at]) for task, at in cases.items()}


def mean_figure(prompts: ArrayLike, outcome_C: ArrayLike) -> Figure:
    """The mean over cases, with its interval."""
    return figure(_itself, prompts, outcome_C)


def figure(
    statistic: Callable[..., FloatArray], prompts: ArrayLike, *columns: ArrayLike, tasks: ArrayLike | None = None
) -> Figure:
    """A statistic of the means of columns over cases, with its interval: see `bootstrap_interval`."""
    interval = bootstrap_interval(statistic, prompts, *columns, rng=np.random.default_rng(0), tasks=tasks)
    return {name: round(float(value), 4) for name, value in vars(interval).items()}


def _itself(mean: FloatArray) -> FloatArray:
    return mean
