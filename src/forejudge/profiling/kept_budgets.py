"""How well time budgets are kept: searches under a budget, one after another."""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist, median
from time import perf_counter

from pydantic import BaseModel, ConfigDict

from forejudge.best_of_n import BestOfN
from forejudge.budget import Limits, expected_n
from forejudge.generators.base import Sampling
from forejudge.profiling.stage_timing import Timing

MAX_N = 512  # far beyond what budgets are meant for: else it and not the budget would end a search
_GRACE = 1.1  # a little late, in budgets


class KeptBudget(BaseModel):
    """Searches under one budget, from the prompt to the picture in memory, with warm models.

    What is promised to each is the N that fits by the costs as the searches before it taught them. Shares are of the
    runs: those that took no longer than the budget, with its 95 % interval (Wilson), those that took no longer than 1.1
    times the budget, and those that judged at least as many as promised.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    budget_milliseconds: float
    runs: int
    median_promised: float
    median_n: float
    least_n: int
    in_time: float
    in_time_interval: tuple[float, float]
    in_time_and_a_tenth: float
    as_promised: float
    milliseconds: Timing
    slowest: float


def kept_budget(
    best: BestOfN, prompts: Sequence[str], budget_ms: float, sampling: Sampling | None = None
) -> KeptBudget:
    """One search for each prompt. Raises InvalidRequest for a budget in which not even one candidate fits."""
    sampling = sampling or best.generator.defaults
    encode = best(prompts[0], budget_ms=budget_ms, max_n=MAX_N, sampling=sampling).timings["encode"]
    runs = [_run(best, prompt, budget_ms, sampling, encode) for prompt in prompts]
    took = [run.milliseconds for run in runs]
    in_time = [milliseconds <= budget_ms for milliseconds in took]
    return KeptBudget(
        budget_milliseconds=budget_ms,
        runs=len(runs),
        median_promised=median(run.promised for run in runs),
        median_n=median(run.n for run in runs),
        least_n=min(run.n for run in runs),
        in_time=_share(in_time),
        in_time_interval=_interval(in_time),
        in_time_and_a_tenth=_share([milliseconds <= _GRACE * budget_ms for milliseconds in took]),
        as_promised=_share([run.n >= run.promised for run in runs]),
        milliseconds=Timing.of(took),
        slowest=max(took),
    )


@dataclass(frozen=True)
class _Run:
    promised: int
    n: int
    milliseconds: float


def _run(best: BestOfN, prompt: str, budget_ms: float, sampling: Sampling, encode: float) -> _Run:
    """One search, whose prompt takes `encode` seconds."""
    limits, chunk = Limits(budget_ms=budget_ms, max_n=MAX_N), best.largest_chunk
    promised = expected_n(limits, chunk, best.costs.measure(prompt, sampling, chunk, budget_ms / 1000), encode)
    started = perf_counter()
    found = best(prompt, budget_ms=budget_ms, max_n=MAX_N, sampling=sampling)
    return _Run(promised, found.record.n, 1000 * (perf_counter() - started))


def _share(of: Sequence[bool]) -> float:
    return sum(of) / len(of)


def _interval(of: Sequence[bool]) -> tuple[float, float]:
    """Wilson's, 95 %: it says something of a share of 100 % too."""
    share, count, z = _share(of), len(of), NormalDist().inv_cdf(0.975)
    middle = (share + z**2 / (2 * count)) / (1 + z**2 / count)
    half = z / (1 + z**2 / count) * (share * (1 - share) / count + z**2 / (4 * count**2)) ** 0.5
    return round(max(middle - half, 0.0), 4), round(min(middle + half, 1.0), 4)
