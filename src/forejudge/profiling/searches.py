"""What a search costs with each verifier: milliseconds, FLOPs and memory, encoded prompt to decoded winner."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from statistics import NormalDist, median
from time import perf_counter

import torch
from pydantic import BaseModel, ConfigDict

from forejudge.best_of_n import BestOfN
from forejudge.generators.base import Generator, Sampling
from forejudge.policies import Limits, expected_n
from forejudge.profiling.measure import Timing, count_flops, peak_memory, timed
from forejudge.progress import Report, Stopwatch
from forejudge.search import Drawing
from forejudge.types import IMAGE, latent_stage
from forejudge.verifiers.base import Verifier

# FOLDED: How well time budgets are kept: searches under a budget, one after another.


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


_JUDGED_AT_ONCE = 8  # the N at which memory is measured, beside 1


class SearchCosts(BaseModel):
    """Of one verifier. `milliseconds` by N is the median over rounds; memory is the peak while candidates are judged.

    FLOPs are split into those of a search and those of each candidate.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    milliseconds: dict[int, float]
    fixed_flops: int
    candidate_flops: int
    judging_bytes: dict[int, int]


def search_costs(
    generator: Generator, verifier: Verifier, prompt: str, ns: Sequence[int], rounds: int, report: Report
) -> SearchCosts:
    """Measure one verifier, models warm. FLOPs and memory are counted in runs of their own."""
    best = BestOfN(generator, verifier, prompts_kept=0)  # the same prompt, encoded every time
    stopwatch = Stopwatch(f"timing {verifier.name}", 0, len(ns))
    milliseconds = {}
    for done, n in enumerate(ns, start=1):
        milliseconds[n] = median_milliseconds(partial(best, prompt, n), rounds, generator.device)
        report(stopwatch.at(done))
    drawing = Drawing(generator, verifier, prompt, generator.defaults)
    judged_at_once = {n: partial(drawing.judge, tuple(range(n))) for n in (1, _JUDGED_AT_ONCE)}
    one, two = (count_flops(partial(best, prompt, n)) for n in (1, 2))
    return SearchCosts(
        milliseconds=milliseconds,
        fixed_flops=2 * one - two,
        candidate_flops=two - one,
        judging_bytes={n: peak_memory(judge, generator.device) for n, judge in judged_at_once.items()},
    )


def stage_flops(generator: Generator, verifiers: Mapping[str, Verifier], prompt: str) -> dict[str, int]:
    """Of each stage for one candidate: encode, the generator's way to where the first verifier reads and on, decode.

    What verifiers add goes by their names.
    """
    sampling, latent = generator.defaults, latent_stage()
    conditioning = generator.encode_without_padding(prompt, sampling)
    first = max(next(iter(verifiers.values())).reads)
    noise = generator.start(conditioning, (0,))
    stages = {"encode": count_flops(partial(generator.encode_without_padding, prompt, sampling))}
    done = noise
    for name, stage in (("to the verdict", min(first, latent)), ("to the latent", latent), ("decode", IMAGE)):
        stages[name] = count_flops(partial(generator.advance, done, [stage]))
        done = generator.advance(done, [stage])
    for name, verifier in verifiers.items():
        read = generator.advance(noise, verifier.reads)
        stages[name] = count_flops(partial(verifier.judge, prompt, read))
    return stages


def drawing_milliseconds(generator: Generator, prompt: str, steps: int, rounds: int) -> float:
    """One picture with so many steps and no verifier."""

    def draw() -> None:
        conditioning = generator.encode_without_padding(prompt, generator.defaults.model_copy(update={"steps": steps}))
        generator.advance(generator.start(conditioning, (0,)), [IMAGE])

    return median_milliseconds(draw, rounds, generator.device)


def median_milliseconds(work: Callable[[], object], rounds: int, device: torch.device) -> float:
    """Of `rounds` runs, after one that warms up."""
    return timed(work, device, rounds, warm_up=1).median
