"""Intervals for figures of a test set whose cases are (prompt, repeat): the two-level bootstrap.

Cases of one prompt resemble each other, so a resample draws prompts first and then cases within
each drawn prompt, both with replacement (Davison and Hinkley, "Bootstrap Methods and their
Application", 1997, section 3.8). With few cases to a prompt this errs on the wide side. Where a
case was run with several seeds, its figure is their average.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from forejudge.prompts.geneval import TASKS

FloatArray = NDArray[np.float64]


@dataclass(frozen=True)
class Interval:
    """A figure of the test set and its percentile interval."""

    estimate: float
    low: float
    high: float


@dataclass(frozen=True)
class Difference(Interval):
    """With `p`, two-sided: how often resamples fall on the other side of no difference, or just on it."""

    p: float


def bootstrap_interval(
    statistic: Callable[..., FloatArray],
    prompt_ids: ArrayLike,
    *columns: ArrayLike,
    rng: np.random.Generator,
    tasks: ArrayLike | None = None,
    resamples: int = 2000,
    level: float = 0.95,
) -> Interval:
    """The interval of a statistic of means, such as a mean, a difference or a ratio.

    `columns` are arrays (cases,) of figures of the same cases; all are resampled together, so a
    difference is paired. `statistic` takes the mean of each column, as arrays (resamples,), and
    returns an array (resamples,): `lambda mean: mean`, `np.subtract`, `oracle_gap_closed`. Resamples
    in which it is not finite (a ratio without a denominator) are left out; where none is left the
    ends are nan.

    Without `tasks` a mean is taken over cases (micro). With `tasks`, one name a case, it is the
    mean of the tasks' means (macro), and prompts are drawn within their task. The same state of
    `rng` gives the same interval.
    """
    estimate, statistics_R = _bootstrap(statistic, prompt_ids, columns, rng, tasks, resamples)
    return Interval(estimate, *_percentile_ends(statistics_R, level))


def bootstrap_difference(
    prompt_ids: ArrayLike, one: ArrayLike, other: ArrayLike, *, rng: np.random.Generator, resamples: int = 2000
) -> Difference:
    """The mean of one figure less that of another over the same cases, with its 95 % interval.

    Both are resampled together, so that the difference is paired.
    """
    estimate, statistics_R = _bootstrap(np.subtract, prompt_ids, (one, other), rng, None, resamples)
    statistics_R = statistics_R.round(
        9
    )  # else whether a resample shows no difference hangs on the order of its summing
    tail_count = min(int((statistics_R <= 0).sum()), int((statistics_R >= 0).sum()))
    return Difference(
        estimate, *_percentile_ends(statistics_R, 0.95), p=min(1.0, 2 * (tail_count + 1) / (resamples + 1))
    )


def _percentile_ends(statistics_R: FloatArray, level: float) -> tuple[float, float]:
    """Of the percentile interval; nan where there are no draws."""
    assert 0 < level < 1
    tail = (1 - level) / 2
    low, high = np.quantile(statistics_R, [tail, 1 - tail]) if statistics_R.size else (np.nan, np.nan)
    return float(low), float(high)


def _bootstrap(
    statistic: Callable[..., FloatArray],
    prompt_ids: ArrayLike,
    columns: Sequence[ArrayLike],
    rng: np.random.Generator,
    tasks: ArrayLike | None,
    resamples: int,
) -> tuple[float, FloatArray]:
    """The statistic of the cases, and of the resamples in which it is finite."""
    prompts = np.asarray(prompt_ids)
    values_KC = np.stack([np.asarray(column, np.float64) for column in columns])
    assert values_KC.shape[1:] == prompts.shape, "prompt_ids and each column: one value a case"
    assert prompts.size > 0
    assert resamples > 0

    groups = _rows_by_value(np.zeros(len(prompts)) if tasks is None else np.asarray(tasks))
    estimate = statistic(*_mean_over_groups([values_KC[:, rows].mean(axis=1, keepdims=True) for rows in groups]))
    statistics_R = statistic(
        *_mean_over_groups([_resampled_means(prompts[rows], values_KC[:, rows], resamples, rng) for rows in groups])
    )
    return float(estimate[0]), statistics_R[np.isfinite(statistics_R)]


def _mean_over_groups(means_by_group: Sequence[FloatArray]) -> FloatArray:
    return np.mean(means_by_group, axis=0)


def _resampled_means(
    prompts: NDArray[np.generic], values_KC: FloatArray, resamples: int, rng: np.random.Generator
) -> FloatArray:
    """(columns, resamples): the mean of each column in each resample."""
    weights_RC = _resample_weights(prompts, resamples, rng)
    return values_KC @ weights_RC.T / weights_RC.sum(axis=1)


def _resample_weights(prompts: NDArray[np.generic], resamples: int, rng: np.random.Generator) -> FloatArray:
    """(resamples, cases): how often each resample holds each case."""
    clusters = _rows_by_value(prompts)
    prompt_counts = rng.multinomial(len(clusters), np.full(len(clusters), 1 / len(clusters)), resamples)
    weights_RC = np.empty((resamples, len(prompts)))
    for count, rows in zip(prompt_counts.T, clusters, strict=True):
        # A prompt drawn t times gives t draws of all its cases: one multinomial of t * size.
        size = len(rows)
        weights_RC[:, rows] = rng.multinomial(count * size, np.full(size, 1 / size))
    return weights_RC


def _rows_by_value(values: NDArray[np.generic]) -> list[NDArray[np.intp]]:
    """The row numbers of each distinct value, in the order of the values."""
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    return np.split(np.argsort(inverse, kind="stable"), np.cumsum(counts)[:-1])


# FOLDED: Shares of right pictures over all tasks and by task, each with its interval, ready for JSON.


IntervalDict = dict[str, float]
"""estimate, low and high: a figure and its 95 % interval."""


def bootstrap_averages(prompts: Sequence[str], tasks: Sequence[str], outcome_C: ArrayLike) -> dict[str, IntervalDict]:
    """Micro (over cases) and macro (over tasks) average and that of every task that has cases.

    `outcome_C` says of each case in [0, 1] how right it is; `prompts` and `tasks` say whose cases they are.
    """
    prompt_C, task_C, values_C = np.array(prompts), np.array(tasks), np.asarray(outcome_C, float)
    figures = {
        "micro": bootstrap_mean(prompt_C, values_C),
        "macro": bootstrap_figure(_identity, prompt_C, values_C, tasks=task_C),
    }
    cases = {task: task_C == task for task in TASKS if task in task_C}
    return figures | {task: bootstrap_mean(prompt_C[mask_C], values_C[mask_C]) for task, mask_C in cases.items()}


def bootstrap_mean(prompts: ArrayLike, outcome_C: ArrayLike) -> IntervalDict:
    """The mean over cases, with its interval."""
    return bootstrap_figure(_identity, prompts, outcome_C)


def bootstrap_figure(
    statistic: Callable[..., FloatArray], prompts: ArrayLike, *columns: ArrayLike, tasks: ArrayLike | None = None
) -> IntervalDict:
    """A statistic of the means of columns over cases, with its interval: see `bootstrap_interval`."""
    interval = bootstrap_interval(statistic, prompts, *columns, rng=np.random.default_rng(0), tasks=tasks)
    return {name: round(float(value), 4) for name, value in vars(interval).items()}


def _identity(mean: FloatArray) -> FloatArray:
    return mean
