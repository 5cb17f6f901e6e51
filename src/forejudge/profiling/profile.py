"""A whole profile: the rates of the device, every stage by itself, every strategy as a whole, and what it saves."""

from collections.abc import Mapping, Sequence
from functools import partial

from forejudge.best_of_n import BestOfN
from forejudge.device import dtype_name, free_memory, is_out_of_memory
from forejudge.errors import InvalidRequest
from forejudge.options import check_count
from forejudge.profiling.figures import (
    ENCODE,
    WARM_UP,
    DeadlineAdherence,
    DeviceRates,
    MarginalCost,
    Memory,
    Profile,
    ProfileSettings,
    Saving,
    StageProfile,
    StrategyProfile,
    Timing,
    TimingWithRoofline,
)
from forejudge.profiling.measure import measure_time, measure_time_interleaved, peak_memory
from forejudge.profiling.models import ProfiledModels
from forejudge.profiling.roofline import device_rates, roofline_ms
from forejudge.profiling.searches import measure_deadline_adherence
from forejudge.profiling.strategies import DecodeAll, Forejudge, Official, SearchStrategy
from forejudge.progress import ProgressCallback, Stopwatch
from forejudge.result import provenance

STRATEGIES: dict[str, type[SearchStrategy]] = {each.name: each for each in (Official, DecodeAll, Forejudge)}
SEARCHES_PER_BUDGET = 100
_BASELINE_INPUT = "clip"  # kind of verifier that savings compare with
_MEMORY_NS = (1, 8)  # N at which scoring memory is measured, beside those asked for
_ON_CPU = "measured on a CPU, not comparable to a GPU"
_ON_GPU = "measured on a GPU by its own clock"


def profile(
    models: ProfiledModels,
    ns: Sequence[int],
    rounds: int,
    strategies: Sequence[str],
    report: ProgressCallback,
    budgets_ms: Sequence[int] = (),
) -> Profile:
    """Measure stages and strategies with each of `ns` candidates over `rounds` rounds.

    `strategies` is as in `new_strategies`; each time budget gets 100 searches. Raises InvalidRequest for a strategy
    without a verifier, a size that the generator does not support, and a budget in which nothing fits.
    """
    check_count("rounds", rounds)
    for n in ns:
        check_count("n", n)
    generator = models.generator
    height, width = models.image_size
    search = _budget_search(models) if budgets_ms else None
    if search:  # refuse a budget in which nothing fits before anything else is measured
        search(models.prompt, budget_ms=min(budgets_ms), sampling=models.sampling)
    profiled_strategies = new_strategies(models, strategies, max(ns))
    rates = device_rates(generator.device, generator.dtype)
    stages = profile_stages(models, ns, rounds, rates, report)
    results = profile_strategies(profiled_strategies, ns, rounds, rates, report)
    settings = ProfileSettings(
        device_note=_ON_GPU if generator.device.type == "cuda" else _ON_CPU,
        generator=generator.name,
        verifiers={kind: verifier.name for kind, verifier in models.verifiers.items()},
        num_prefix_blocks=models.num_prefix_blocks,
        ns=tuple(ns),
        height=height,
        width=width,
        device=str(generator.device),
        dtype=dtype_name(generator.dtype),
        compiled=models.eager is not None,
        rounds=rounds,
        warm_up=WARM_UP,
    )
    return Profile(
        provenance=provenance(generator.device),
        settings=settings,
        rates=rates,
        stages=stages,
        strategies=results,
        savings=savings(results),
        deadline_adherence=tuple(_measure_deadlines(models, search, budgets_ms, report)) if search else (),
    )


def check_strategies(names: Sequence[str]) -> None:
    """Raise InvalidRequest for an unknown strategy."""
    for name in names:
        if name not in STRATEGIES:
            raise InvalidRequest(f"unknown strategy {name!r}: expected {', '.join(STRATEGIES)}")


def new_strategies(models: ProfiledModels, names: Sequence[str], max_batch_size: int) -> list[SearchStrategy]:
    """Make each strategy with every verifier that it supports, for up to `max_batch_size` candidates at once.

    Without names, make all strategies that have a verifier. Raises InvalidRequest for an unknown strategy, and for a
    named one without a verifier.
    """
    check_strategies(names)
    kinds = {name: _supported_kinds(models, name) for name in names or STRATEGIES}
    for name in names:
        if not kinds[name]:
            required = STRATEGIES[name].required_input
            raise InvalidRequest(f"strategy {name} needs a verifier that reads {required}: name one with --verifier")
    return [
        STRATEGIES[name](models, kind, max_batch_size) for name, input_kinds in kinds.items() for kind in input_kinds
    ]


def _supported_kinds(models: ProfiledModels, strategy: str) -> list[str]:
    return [kind for kind, verifier in models.verifiers.items() if STRATEGIES[strategy].supports(verifier)]


def profile_stages(
    models: ProfiledModels, ns: Sequence[int], rounds: int, rates: DeviceRates, report: ProgressCallback
) -> dict[str, StageProfile]:
    """Measure every stage with batches of `ns` candidates; the prompt is encoded once whatever N is."""
    results = {}
    stopwatch = Stopwatch("timing stages", 0, len(models.stages))
    for done, (stage, cost) in enumerate(models.costs.items(), start=1):
        timings = _stage_timings(models, stage, (1,) if stage == ENCODE else ns, rounds)
        measurements = {
            n: TimingWithRoofline.from_timing(timing, roofline_ms(cost, n, rates)) for n, timing in timings.items()
        }
        results[stage] = StageProfile(flops=cost.flops, weight_bytes=cost.weight_bytes, measurements=measurements)
        report(stopwatch.at(done))
    return results


def _stage_timings(models: ProfiledModels, stage: str, ns: Sequence[int], rounds: int) -> dict[int, Timing]:
    """Time a stage by batch size, up to the first batch that does not fit in memory."""
    results = {}
    for n in ns:
        try:
            results[n] = measure_time(models.workload(stage, n), models.generator.device, rounds, WARM_UP)
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
            break
    free_memory()
    return results


def profile_strategies(
    strategies: Sequence[SearchStrategy], ns: Sequence[int], rounds: int, rates: DeviceRates, report: ProgressCallback
) -> tuple[StrategyProfile, ...]:
    """Measure every strategy with each of `ns` candidates, end to end; all take turns in every round."""
    if not strategies:
        return ()
    stopwatch = Stopwatch("timing strategies", 0, WARM_UP + rounds)
    workloads = {(index, n): partial(each.run, _seeds(n)) for index, each in enumerate(strategies) for n in ns}
    device = strategies[0].models.generator.device
    timings = measure_time_interleaved(workloads, device, rounds, WARM_UP, lambda done: report(stopwatch.at(done)))
    return tuple(
        _profile_strategy(strategy, {n: timings[index, n] for n in ns}, rates)
        for index, strategy in enumerate(strategies)
    )


def _profile_strategy(strategy: SearchStrategy, timings: dict[int, Timing], rates: DeviceRates) -> StrategyProfile:
    memory, flops = _memory(strategy, list(timings)), {n: strategy.flops(n) for n in timings}
    return StrategyProfile(
        strategy=strategy.name,
        verifier=strategy.kind,
        batch_size=strategy.batch_size,
        flops=flops,
        measurements={
            n: TimingWithRoofline.from_timing(timing, strategy.roofline_ms(n, rates)) for n, timing in timings.items()
        },
        memory=memory,
        marginal_cost=marginal_cost({n: timing.median for n, timing in timings.items()}, flops, memory.scoring),
    )


def _memory(strategy: SearchStrategy, ns: Sequence[int]) -> Memory:
    device = strategy.models.generator.device
    # On a CPU the tensors that operations return are counted, and compiled code has no such operations.
    measured_strategy = strategy if device.type == "cuda" else strategy.eager
    return Memory.from_peaks(
        scoring={n: peak_memory(measured_strategy.scoring(_seeds(n)), device) for n in sorted({*_MEMORY_NS, *ns})},
        end_to_end={n: peak_memory(partial(measured_strategy.run, _seeds(n)), device) for n in ns},
        weights=strategy.models.weight_bytes(strategy.kind),
    )


def _seeds(n: int) -> tuple[int, ...]:
    """Return seeds that all strategies share, so that they generate the same candidates."""
    return tuple(range(n))


def marginal_cost(
    milliseconds: Mapping[int, float], flops: Mapping[int, int], peak: Mapping[int, int]
) -> MarginalCost | None:
    """Return the cost of one more candidate from costs by N, `peak` that of scoring; None with a single N.

    It is never negative, whatever a disturbed timing says.
    """
    if len(milliseconds) < 2:
        return None
    peak_by_n = {n: peak[n] for n in milliseconds}
    return MarginalCost(milliseconds=_slope(milliseconds), flops=_slope(flops), bytes=_slope(peak_by_n))


def _slope(cost: Mapping[int, float]) -> float:
    first, last = min(cost), max(cost)
    return max(cost[last] - cost[first], 0) / (last - first)


def savings(results: Sequence[StrategyProfile]) -> tuple[Saving, ...]:
    """Compare `forejudge` with the other strategies, and `official` with itself on CLIP as the paper does.

    The other side has the same kind of verifier or CLIP. There is nothing to compare without marginal costs, or where
    the other's timing was too disturbed to show any.
    """
    return tuple(
        _saving((one, one.marginal_cost), (other, other.marginal_cost))
        for one in results
        for other in results
        if one.marginal_cost
        and other.marginal_cost
        and other.marginal_cost.milliseconds > 0
        and _comparable(one, other)
    )


def _comparable(one: StrategyProfile, other: StrategyProfile) -> bool:
    if one.strategy == Forejudge.name:
        return other.strategy != Forejudge.name and other.verifier in (one.verifier, _BASELINE_INPUT)
    return one.strategy == other.strategy == Official.name and other.verifier == _BASELINE_INPUT != one.verifier


def _saving(one: tuple[StrategyProfile, MarginalCost], other: tuple[StrategyProfile, MarginalCost]) -> Saving:
    (first, slope), (second, reference) = one, other
    return Saving(
        strategy=first.name,
        baseline=second.name,
        milliseconds=_percent_saved(slope.milliseconds, reference.milliseconds),
        flops=_percent_saved(slope.flops, reference.flops),
        scoring_bytes=_percent_saved(
            _at_min_n(first.memory.scoring_with_weights), _at_min_n(second.memory.scoring_with_weights)
        ),
        end_to_end_bytes=_percent_saved(
            _at_min_n(first.memory.end_to_end_with_weights), _at_min_n(second.memory.end_to_end_with_weights)
        ),
    )


def _at_min_n(by_n: Mapping[int, int]) -> int:
    return by_n[min(by_n)]


def _percent_saved(cost: float, reference: float) -> float:
    return 100 * (1 - cost / reference)


def _budget_search(models: ProfiledModels) -> BestOfN:
    """Make a search with the first verifier that `forejudge` supports; the prompt is encoded again each time."""
    verifiers = [verifier for verifier in models.verifiers.values() if Forejudge.supports(verifier)]
    if not verifiers:
        raise InvalidRequest(
            f"--budget-ms needs a verifier that reads {Forejudge.required_input}: name one with --verifier"
        )
    return BestOfN(models.generator, verifiers[0], prompt_cache_size=0)


def _measure_deadlines(
    models: ProfiledModels, search: BestOfN, budgets_ms: Sequence[int], report: ProgressCallback
) -> list[DeadlineAdherence]:
    stopwatch, results = Stopwatch("searching under time budgets", 0, len(budgets_ms)), []
    for done, budget_ms in enumerate(budgets_ms, start=1):
        results.append(
            measure_deadline_adherence(search, [models.prompt] * SEARCHES_PER_BUDGET, budget_ms, models.sampling)
        )
        report(stopwatch.at(done))
    return results
