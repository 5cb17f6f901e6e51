"""What a search costs with each verifier: milliseconds, FLOPs and memory, encoded prompt to decoded winner."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from statistics import NormalDist, median
from time import perf_counter

import torch
from pydantic import BaseModel, ConfigDict

from forejudge.best_of_n import BestOfN
from forejudge.generators.base import Generator, SamplingParams
from forejudge.options import SearchOptions
from forejudge.policies import AllPolicies, expected_n
from forejudge.profiling.measure import Timing, count_flops, measure_time, peak_memory
from forejudge.progress import ProgressCallback, Stopwatch
from forejudge.session import PromptSession
from forejudge.types import IMAGE, latent_stage
from forejudge.verifiers.base import Verifier

# FOLDED: How well time budgets are kept: searches under a budget, one after another.


MAX_N = 512  # far beyond what budgets are meant for: else it and not the budget would end a search
_GRACE = 1.1  # a little late, in budgets


class DeadlineAdherence(BaseModel):
    """Searches under one budget, from the prompt to the picture in memory, with warm models.

    What is promised to each is the N that fits by the costs as the searches before it taught them. Shares are of the
    runs: those that took no longer than the budget, with its 95 % interval (Wilson), those that took no longer than 1.1
    times the budget, and those that judged at least as many as promised.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    budget_ms: float
    runs: int
    median_predicted_n: float
    median_n: float
    min_n: int
    on_time: float
    on_time_interval: tuple[float, float]
    on_time_with_grace: float
    reached_predicted_n: float
    milliseconds: Timing
    slowest: float


def measure_deadline_adherence(
    best: BestOfN, prompts: Sequence[str], budget_ms: float, sampling: SamplingParams | None = None
) -> DeadlineAdherence:
    """One search for each prompt. Raises InvalidRequest for a budget in which not even one candidate fits."""
    sampling = sampling or best.generator.defaults
    encode = best(prompts[0], budget_ms=budget_ms, max_n=MAX_N, sampling=sampling).timings["encode"]
    runs = [_run(best, prompt, budget_ms, sampling, encode) for prompt in prompts]
    durations = [run.milliseconds for run in runs]
    on_time = [milliseconds <= budget_ms for milliseconds in durations]
    return DeadlineAdherence(
        budget_ms=budget_ms,
        runs=len(runs),
        median_predicted_n=median(run.predicted_n for run in runs),
        median_n=median(run.n for run in runs),
        min_n=min(run.n for run in runs),
        on_time=_share(on_time),
        on_time_interval=_interval(on_time),
        on_time_with_grace=_share([milliseconds <= _GRACE * budget_ms for milliseconds in durations]),
        reached_predicted_n=_share([run.n >= run.predicted_n for run in runs]),
        milliseconds=Timing.of(durations),
        slowest=max(durations),
    )


@dataclass(frozen=True)
class _Run:
    predicted_n: int
    n: int
    milliseconds: float


def _run(best: BestOfN, prompt: str, budget_ms: float, sampling: SamplingParams, encode: float) -> _Run:
    """One search, whose prompt takes `encode` seconds."""
    costs = best.costs.measure(prompt, sampling, best.max_batch_size, budget_ms / 1000)
    policy = AllPolicies.from_options(SearchOptions(budget_ms=budget_ms, max_n=MAX_N), lambda seconds: costs)
    predicted_n = expected_n(policy, best.max_batch_size, costs, encode)
    started = perf_counter()
    result = best(prompt, budget_ms=budget_ms, max_n=MAX_N, sampling=sampling)
    return _Run(predicted_n, result.record.n, 1000 * (perf_counter() - started))


def _share(of: Sequence[bool]) -> float:
    return sum(of) / len(of)


def _interval(of: Sequence[bool]) -> tuple[float, float]:
    """Wilson's, 95 %: it says something of a share of 100 % too."""
    share, count, z = _share(of), len(of), NormalDist().inv_cdf(0.975)
    center = (share + z**2 / (2 * count)) / (1 + z**2 / count)
    half_width = z / (1 + z**2 / count) * (share * (1 - share) / count + z**2 / (4 * count**2)) ** 0.5
    return round(max(center - half_width, 0.0), 4), round(min(center + half_width, 1.0), 4)


_MEMORY_BATCH_SIZE = 8  # the N at which memory is measured, beside 1


class SearchCosts(BaseModel):
    """Of one verifier. `milliseconds` by N is the median over rounds; memory is the peak while candidates are judged.

    FLOPs are split into those of a search and those of each candidate.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    milliseconds: dict[int, float]
    fixed_flops: int
    candidate_flops: int
    scoring_bytes: dict[int, int]


def search_costs(
    generator: Generator, verifier: Verifier, prompt: str, ns: Sequence[int], rounds: int, report: ProgressCallback
) -> SearchCosts:
    """Measure one verifier, models warm. FLOPs and memory are counted in runs of their own."""
    best = BestOfN(generator, verifier, prompt_cache_size=0)  # the same prompt, encoded every time
    stopwatch = Stopwatch(f"timing {verifier.name}", 0, len(ns))
    milliseconds = {}
    for done, n in enumerate(ns, start=1):
        milliseconds[n] = median_milliseconds(partial(best, prompt, n), rounds, generator.device)
        report(stopwatch.at(done))
    session = PromptSession(generator, verifier, prompt, generator.defaults)
    scoring_calls = {n: partial(session.score, tuple(range(n))) for n in (1, _MEMORY_BATCH_SIZE)}
    one, two = (count_flops(partial(best, prompt, n)) for n in (1, 2))
    return SearchCosts(
        milliseconds=milliseconds,
        fixed_flops=2 * one - two,
        candidate_flops=two - one,
        scoring_bytes={n: peak_memory(score, generator.device) for n, score in scoring_calls.items()},
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
    for name, stage in (("prefix", min(first, latent)), ("suffix", latent), ("decode", IMAGE)):
        stages[name] = count_flops(partial(generator.advance, done, [stage]))
        done = generator.advance(done, [stage])
    for name, verifier in verifiers.items():
        input_candidates = generator.advance(noise, verifier.reads)
        stages[name] = count_flops(partial(verifier.score, prompt, input_candidates))
    return stages


def generation_milliseconds(generator: Generator, prompt: str, steps: int, rounds: int) -> float:
    """One picture with so many steps and no verifier."""

    def generate() -> None:
        conditioning = generator.encode_without_padding(prompt, generator.defaults.model_copy(update={"steps": steps}))
        generator.advance(generator.start(conditioning, (0,)), [IMAGE])

    return median_milliseconds(generate, rounds, generator.device)


def median_milliseconds(workload: Callable[[], object], rounds: int, device: torch.device) -> float:
    """Of `rounds` runs, after one that warms up."""
    return measure_time(workload, device, rounds, warm_up=1).median
