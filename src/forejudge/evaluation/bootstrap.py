"""Two-level bootstrap intervals for test cases that are (prompt, repeat) pairs.

Cases of one prompt resemble each other, so a resample draws prompts first and then cases within each drawn prompt, both
with replacement (Davison and Hinkley, "Bootstrap Methods and their Application", 1997, section 3.8). With few cases per
prompt this errs on the wide side. The outcome of a case that ran with several seeds is their average.

Shapes: C cases, V variants of an outcome, R resamples.
"""

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from typing import Annotated, TypeVar

import numpy as np
from numpy.typing import ArrayLike, NDArray
from pydantic import AfterValidator, BaseModel, ConfigDict
from pydantic.dataclasses import dataclass

from forejudge.prompts.geneval import TASKS, Task

FloatArray = NDArray[np.float64]
_STRICT = ConfigDict(extra="forbid", ser_json_inf_nan="constants")  # an undefined ratio is nan
_DIGITS = 4  # of reported figures
RESAMPLES = 2000


@dataclasses.dataclass(frozen=True)
class UncertainOutcome:
    """Outcomes (V, C) of cases in variants, such as one for each N, where the variant is an estimate itself.

    `estimate` is the index of the variant that is reported, `resampled_R` that of each resample.
    """

    variants_VC: FloatArray
    estimate: int
    resampled_R: NDArray[np.intp]

    @classmethod
    def certain(cls, outcome_C: ArrayLike, resamples: int) -> "UncertainOutcome":
        """Return an outcome with one variant."""
        return cls(np.asarray(outcome_C, np.float64)[None], 0, np.zeros(resamples, np.intp))

    def of_cases(self, is_kept_C: NDArray[np.bool_]) -> "UncertainOutcome":
        """Keep some of the cases."""
        return dataclasses.replace(self, variants_VC=self.variants_VC[:, is_kept_C])


Outcome = ArrayLike | UncertainOutcome
"""Outcomes per case (C,) in [0, 1], or variants of them."""


@dataclass(frozen=True, config=_STRICT)
class Interval:
    """A figure of the test set with the ends of its 95 % percentile interval."""

    estimate: float
    low: float
    high: float


@dataclass(frozen=True, config=_STRICT)
class Difference(Interval):
    """A paired difference with its two-sided p, 2 (k + 1) / (resamples + 1) and at most 1.

    k counts the resamples in the smaller of the two tails, at or below zero and at or above it.
    """

    p: float


AnyInterval = TypeVar("AnyInterval", bound=Interval)


def _check_share(interval: Interval) -> Interval:
    if not all(0 <= value <= 1 for value in (interval.estimate, interval.low, interval.high)):
        raise ValueError("expected a share and its interval in [0, 1]")
    return interval


def _check_lead(lead: Difference) -> Difference:
    if not (-1 <= lead.low <= lead.high <= 1 and -1 <= lead.estimate <= 1 and 0 < lead.p <= 1):
        raise ValueError("expected a lead and its interval in [-1, 1], and p in (0, 1]")
    return lead


Share = Annotated[Interval, AfterValidator(_check_share)]
Lead = Annotated[Difference, AfterValidator(_check_lead)]


class Averages(BaseModel):
    """Accuracy in [0, 1] over cases (micro), as the mean over tasks (macro), and of each task that has cases."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    micro: Share
    macro: Share
    tasks: dict[Task, Share]


def bootstrap_averages(prompts: Sequence[str], tasks: Sequence[str], outcome: Outcome) -> Averages:
    """Average the outcomes in [0, 1] of cases, whose prompts and tasks are given, each average with its interval."""
    prompt_C, task_C, outcome = np.array(prompts), np.array(tasks), _uncertain(outcome, RESAMPLES)
    masks = {task: task_C == task for task in TASKS if task in task_C}
    return Averages(
        micro=bootstrap_mean(prompt_C, outcome),
        macro=bootstrap_figure(_identity, prompt_C, outcome, tasks=task_C),
        tasks={task: bootstrap_mean(prompt_C[mask_C], outcome.of_cases(mask_C)) for task, mask_C in masks.items()},
    )


def bootstrap_mean(prompts: ArrayLike, outcome: Outcome) -> Interval:
    """Return the mean over cases with its interval, rounded to 4 digits."""
    return bootstrap_figure(_identity, prompts, outcome)


def bootstrap_figure(
    statistic: Callable[..., FloatArray], prompts: ArrayLike, *columns: Outcome, tasks: ArrayLike | None = None
) -> Interval:
    """Return `bootstrap_interval` from a fixed random state, rounded to 4 digits."""
    interval = bootstrap_interval(statistic, prompts, *columns, rng=np.random.default_rng(0), tasks=tasks)
    return _rounded(interval)


def paired_difference(prompts: ArrayLike, one: Outcome, other: Outcome) -> Difference:
    """Return `bootstrap_difference` from a fixed random state, rounded to 4 digits."""
    return _rounded(bootstrap_difference(prompts, one, other, rng=np.random.default_rng(0)))


def bootstrap_interval(
    statistic: Callable[..., FloatArray],
    prompt_ids: ArrayLike,
    *columns: Outcome,
    rng: np.random.Generator,
    tasks: ArrayLike | None = None,
    resamples: int = RESAMPLES,
    level: float = 0.95,
) -> Interval:
    """Compute the interval of a statistic of column means, such as a mean, a difference or a ratio.

    `columns` are figures of the same cases. They are resampled together, so differences are paired.
    `statistic` takes the mean of each column as arrays (R,) and returns an array (R,): `np.subtract`,
    `oracle_gap_closed`. Resamples where it is not finite (a ratio without a denominator) are left out; where none is
    left, the ends are nan.

    Without `tasks` a mean is taken over cases (micro). With `tasks`, one name per case, it is the mean of task means
    (macro), and prompts are drawn within their task. One state of `rng` always gives one interval.
    """
    estimate, statistics_R = _bootstrap(statistic, prompt_ids, columns, rng, tasks, resamples)
    return Interval(estimate, *_percentile_ends(statistics_R, level))


def bootstrap_difference(
    prompt_ids: ArrayLike, one: Outcome, other: Outcome, *, rng: np.random.Generator, resamples: int = RESAMPLES
) -> Difference:
    """Compute the mean of `one` minus that of `other` over the same cases, paired, with its 95 % interval and p."""
    estimate, statistics_R = _bootstrap(np.subtract, prompt_ids, (one, other), rng, None, resamples)
    statistics_R = statistics_R.round(9)  # the order of summation must not decide whether a resample is zero
    tail_count = min(int((statistics_R <= 0).sum()), int((statistics_R >= 0).sum()))
    p = min(1.0, 2 * (tail_count + 1) / (resamples + 1))
    return Difference(estimate, *_percentile_ends(statistics_R, 0.95), p=p)


def _rounded(interval: AnyInterval) -> AnyInterval:
    return replace(interval, **{name: round(value, _DIGITS) for name, value in asdict(interval).items()})


def _percentile_ends(statistics_R: FloatArray, level: float) -> tuple[float, float]:
    """Return the ends of the percentile interval; nan without resamples."""
    assert 0 < level < 1
    tail = (1 - level) / 2
    low, high = np.quantile(statistics_R, [tail, 1 - tail]) if statistics_R.size else (np.nan, np.nan)
    return float(low), float(high)


def _bootstrap(
    statistic: Callable[..., FloatArray],
    prompt_ids: ArrayLike,
    columns: Sequence[Outcome],
    rng: np.random.Generator,
    tasks: ArrayLike | None,
    resamples: int,
) -> tuple[float, FloatArray]:
    """Return the statistic of the cases, and its finite values over the resamples."""
    prompts = np.asarray(prompt_ids)
    outcomes = [_uncertain(column, resamples) for column in columns]
    assert all(outcome.variants_VC.shape[1:] == prompts.shape for outcome in outcomes), "columns: one value per case"
    assert prompts.size > 0
    assert resamples > 0

    groups = _rows_by_value(np.zeros(len(prompts)) if tasks is None else np.asarray(tasks))
    estimates = [outcome.variants_VC[[outcome.estimate]] for outcome in outcomes]
    estimate = statistic(*_mean_over_groups([[each[:, rows].mean(axis=1) for each in estimates] for rows in groups]))
    statistics_R = statistic(
        *_mean_over_groups([_resampled_means(prompts, outcomes, rows, resamples, rng) for rows in groups])
    )
    return float(estimate[0]), statistics_R[np.isfinite(statistics_R)]


def _uncertain(outcome: Outcome, resamples: int) -> UncertainOutcome:
    return outcome if isinstance(outcome, UncertainOutcome) else UncertainOutcome.certain(outcome, resamples)


def _mean_over_groups(means_by_group: Sequence[Sequence[FloatArray]]) -> FloatArray:
    return np.mean(means_by_group, axis=0)


def _resampled_means(
    prompts: NDArray[np.generic],
    outcomes: Sequence[UncertainOutcome],
    rows: NDArray[np.intp],
    resamples: int,
    rng: np.random.Generator,
) -> list[FloatArray]:
    """Return the mean over `rows` of each outcome in each resample, (R,), where the resample has its own variant."""
    weights_RC = _resample_weights(prompts[rows], resamples, rng)
    means = [outcome.variants_VC[:, rows] @ weights_RC.T / weights_RC.sum(axis=1) for outcome in outcomes]
    columns = np.arange(resamples)
    return [mean_VR[outcome.resampled_R, columns] for mean_VR, outcome in zip(means, outcomes, strict=True)]


def _resample_weights(prompts: NDArray[np.generic], resamples: int, rng: np.random.Generator) -> FloatArray:
    """Return how often each resample holds each case, (R, C)."""
    clusters = _rows_by_value(prompts)
    prompt_counts = rng.multinomial(len(clusters), np.full(len(clusters), 1 / len(clusters)), resamples)
    weights_RC = np.empty((resamples, len(prompts)))
    for count, rows in zip(prompt_counts.T, clusters, strict=True):
        # A prompt drawn t times gives t draws of all its cases: one multinomial of t * size.
        size = len(rows)
        weights_RC[:, rows] = rng.multinomial(count * size, np.full(size, 1 / size))
    return weights_RC


def _rows_by_value(values: NDArray[np.generic]) -> list[NDArray[np.intp]]:
    """Return the row numbers of each distinct value, in the order of the values."""
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    return np.split(np.argsort(inverse, kind="stable"), np.cumsum(counts)[:-1])


def _identity(mean: FloatArray) -> FloatArray:
    return mean
