"""Costs of whole searches: time, FLOPs and memory with each verifier, and how well time budgets are met."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from statistics import NormalDist, median
from time import perf_counter

from forejudge.best_of_n import BestOfN
from forejudge.generators.base import Generator, SamplingParams
from forejudge.options import SearchOptions
from forejudge.policies import AllPolicies, expected_n
from forejudge.profiling.figures import DECODE, ENCODE, PREFIX, SUFFIX, DeadlineAdherence, SearchCosts, Timing
from forejudge.profiling.measure import count_flops, peak_memory
from forejudge.session import PromptSession
from forejudge.types import IMAGE, latent_stage
from forejudge.verifiers.base import Verifier

MAX_N = 512  # high enough that the budget, not N, ends a search
_GRACE = 1.1  # tolerated share of a budget
_MEMORY_BATCH_SIZE = 8  # N at which memory is measured, beside 1


def measure_deadline_adherence(
    best: BestOfN, prompts: Sequence[str], budget_ms: float, sampling: SamplingParams | None = None
) -> DeadlineAdherence:
    """Run one search for each prompt. Raises InvalidRequest for a budget in which not even one candidate fits."""
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
        milliseconds=Timing.from_rounds(durations),
        slowest=max(durations),
    )


@dataclass(frozen=True)
class _Run:
    predicted_n: int
    n: int
    milliseconds: float


def _run(best: BestOfN, prompt: str, budget_ms: float, sampling: SamplingParams, encode: float) -> _Run:
    """Run one search, whose prompt takes `encode` seconds to encode."""
    costs = best.costs.measure(prompt, sampling, best.max_batch_size, budget_ms / 1000)
    policy = AllPolicies.from_options(SearchOptions(budget_ms=budget_ms, max_n=MAX_N), lambda seconds: costs)
    predicted_n = expected_n(policy, best.max_batch_size, costs, encode)
    started = perf_counter()
    result = best(prompt, budget_ms=budget_ms, max_n=MAX_N, sampling=sampling)
    return _Run(predicted_n, result.record.n, 1000 * (perf_counter() - started))


def _share(of: Sequence[bool]) -> float:
    return sum(of) / len(of)


def _interval(of: Sequence[bool]) -> tuple[float, float]:
    """Return the 95 % Wilson interval of a share, which has a width for a share of 100 % too."""
    share, count, z = _share(of), len(of), NormalDist().inv_cdf(0.975)
    center = (share + z**2 / (2 * count)) / (1 + z**2 / count)
    half_width = z / (1 + z**2 / count) * (share * (1 - share) / count + z**2 / (4 * count**2)) ** 0.5
    return round(max(center - half_width, 0.0), 4), round(min(center + half_width, 1.0), 4)


def search_workloads(
    generator: Generator, verifier: Verifier, prompt: str, ns: Sequence[int]
) -> dict[int, Callable[[], object]]:
    """Return a search with one verifier for each N, which encodes the prompt every time."""
    best = BestOfN(generator, verifier, prompt_cache_size=0)
    return {n: partial(best, prompt, n) for n in ns}


def generation_workload(generator: Generator, prompt: str, steps: int) -> Callable[[], object]:
    """Return the generation of one image with a number of steps and no verifier."""
    sampling = generator.defaults.model_copy(update={"steps": steps})

    def generate() -> None:
        conditioning = generator.encode_without_padding(prompt, sampling)
        generator.advance(generator.start(conditioning, (0,)), [IMAGE])

    return generate


def search_costs(
    generator: Generator, verifier: Verifier, prompt: str, rounds_ms: Mapping[int, Sequence[float]]
) -> SearchCosts:
    """Count FLOPs and memory of searches with one verifier, beside their milliseconds in each round, by N."""
    one, two = (count_flops(search) for search in search_workloads(generator, verifier, prompt, (1, 2)).values())
    session = PromptSession(generator, verifier, prompt, generator.defaults)
    scoring_calls = {n: partial(session.score, tuple(range(n))) for n in (1, _MEMORY_BATCH_SIZE)}
    return SearchCosts(
        milliseconds={n: median(milliseconds) for n, milliseconds in rounds_ms.items()},
        rounds_ms={n: tuple(milliseconds) for n, milliseconds in rounds_ms.items()},
        fixed_flops=max(2 * one - two, 0),
        candidate_flops=max(two - one, 0),
        scoring_bytes={n: peak_memory(score, generator.device) for n, score in scoring_calls.items()},
    )


def stage_flops(generator: Generator, verifiers: Mapping[str, Verifier], prompt: str) -> dict[str, int]:
    """Count the FLOPs of each stage for one candidate: the generator's stages, then each verifier by its name.

    The prefix ends where the first verifier reads.
    """
    sampling = generator.defaults
    latent = latent_stage(sampling.steps - 1)
    conditioning = generator.encode_without_padding(prompt, sampling)
    first = max(next(iter(verifiers.values())).reads)
    noise = generator.start(conditioning, (0,))
    stages = {ENCODE: count_flops(partial(generator.encode_without_padding, prompt, sampling))}
    done = noise
    for name, stage in ((PREFIX, min(first, latent)), (SUFFIX, latent), (DECODE, IMAGE)):
        stages[name] = count_flops(partial(generator.advance, done, [stage]))
        done = generator.advance(done, [stage])
    for name, verifier in verifiers.items():
        input_candidates = generator.advance(noise, verifier.reads)
        stages[name] = count_flops(partial(verifier.score, prompt, input_candidates))
    return stages
