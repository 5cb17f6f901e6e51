"""The whole profile: rates of the device, every stage by itself, and every way to pick the best as a whole."""

from collections.abc import Callable, Mapping, Sequence
from copy import copy
from dataclasses import dataclass
from functools import partial

from torch import Tensor

from forejudge.best_of_n import BestOfN
from forejudge.device import dtype_name, free_memory, is_out_of_memory
from forejudge.errors import InvalidRequest
from forejudge.generators.base import Architecture
from forejudge.profiling.figures import (
    WARM_UP,
    MarginalCost,
    Memory,
    Profile,
    ProfileSettings,
    Saving,
    StageProfile,
    StrategyProfile,
    TimingWithRoofline,
)
from forejudge.profiling.measure import Timing, measure_time, measure_time_interleaved, peak_memory
from forejudge.profiling.models import ProfiledModels, scoring_stage
from forejudge.profiling.roofline import DeviceRates, device_rates, roofline_ms
from forejudge.profiling.searches import DeadlineAdherence, measure_deadline_adherence
from forejudge.profiling.stages import CLIP, DECODE, ENCODE, PREFIX, SUFFIX
from forejudge.profiling.strategies import DecodeAll, Forejudge, Official, SearchStrategy
from forejudge.progress import ProgressCallback, Stopwatch
from forejudge.result import provenance
from forejudge.types import IMAGE, Candidates, Stage, latent_stage, prefix_stage
from forejudge.verifiers.inputs import VerifierInput

# FOLDED: What one more candidate costs, and what one way to pick saves against another. Pure functions.


_BASELINE_INPUT = "clip"  # what everything is measured against


def marginal_cost(
    milliseconds: Mapping[int, float], flops: Mapping[int, int], peak: Mapping[int, int]
) -> MarginalCost | None:
    """From costs by N, `peak` the most memory while candidates are judged; None where there is only one N."""
    if len(milliseconds) < 2:
        return None
    peak_by_n = {n: peak[n] for n in milliseconds}
    return MarginalCost(milliseconds=_slope(milliseconds), flops=_slope(flops), bytes=_slope(peak_by_n))


def _slope(cost: Mapping[int, float]) -> float:
    first, last = min(cost), max(cost)
    return (cost[last] - cost[first]) / (last - first)


def savings(results: Sequence[StrategyProfile]) -> tuple[Saving, ...]:
    """Of each of ours against the others with its verifier or with CLIP; and, as the paper compares, of the release's.

    None without a slope.
    """
    return tuple(
        _saving((one, one.marginal_cost), (other, other.marginal_cost))
        for one in results
        for other in results
        if one.marginal_cost and other.marginal_cost and _comparable(one, other)
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
    """At the smallest N."""
    return by_n[min(by_n)]


def _percent_saved(cost: float, reference: float) -> float:
    """In per cent."""
    return 100 * (1 - cost / reference)


# FOLDED: Each stage as a piece of work of its own, for a batch that stands ready where the stage begins.


@dataclass(frozen=True)
class StageWorkloads:
    """The parts of a search, made of the very calls of which a search consists."""

    models: ProfiledModels

    def of(self, stage: str, batch: int) -> Callable[[], object]:
        """A stage that `ProfiledModels.costs` names. What comes before it is done here; the work itself can be repeated."""
        models = self.models
        if stage == ENCODE:
            return partial(models.generator.encode_without_padding, models.prompt, models.sampling)
        if stage == PREFIX:
            return partial(self._generate, batch, self._cut)
        if stage in (SUFFIX, DECODE):
            begin, end = (self._cut, latent_stage()) if stage == SUFFIX else (latent_stage(), IMAGE)
            return partial(models.generator.advance, self._generate(batch, begin).without_views(), [end])
        if stage == CLIP:
            verifier = next(each for each in models.verifiers.values() if IMAGE in each.reads)
            return partial(verifier.verifier_input.tokens, self._generate(batch, IMAGE))
        kind = next(kind for kind in models.verifiers if scoring_stage(kind) == stage)
        return self._scoring(kind, batch)

    @property
    def _cut(self) -> Stage:
        return prefix_stage(self.models.blocks)

    def _generate(self, batch: int, stage: Stage) -> Candidates:
        generator = self.models.generator
        return generator.advance(generator.start(self.models.conditioning, tuple(range(batch))), [stage])

    def _scoring(self, kind: str, batch: int) -> Callable[[], object]:
        verifier = copy(self.models.verifiers[kind])
        (stage,) = verifier.reads
        candidates = self._generate(batch, stage)
        verifier.verifier_input = _PrecomputedInput(verifier.verifier_input, verifier.verifier_input.tokens(candidates))
        return partial(verifier.score, self.models.prompt, candidates)


class _PrecomputedInput(VerifierInput):
    """A reading that has looked already."""

    def __init__(self, verifier_input: VerifierInput, tokens_NTD: Tensor) -> None:
        self.name, self.stage, self._verifier_input, self._tokens_NTD = (
            verifier_input.name,
            verifier_input.stage,
            verifier_input,
            tokens_NTD,
        )

    def width(self, architecture: Architecture) -> int:
        """See `VerifierInput.width`."""
        return self._verifier_input.width(architecture)

    def tokens(self, candidates: Candidates) -> Tensor:
        """See `VerifierInput.tokens`."""
        return self._tokens_NTD


# FOLDED: Every stage measured by itself.


def profile_stages(
    models: ProfiledModels, ns: Sequence[int], rounds: int, rates: DeviceRates, report: ProgressCallback
) -> dict[str, StageProfile]:
    """By stage, each with batches of `ns` candidates; the prompt is encoded but once."""
    size, results = models.generator.dtype.itemsize, {}
    stopwatch = Stopwatch("timing stages", 0, len(models.costs))
    for done, (stage, cost) in enumerate(models.costs.items(), start=1):
        timings = _timings(models, stage, (1,) if stage == ENCODE else ns, rounds)
        at = {
            n: TimingWithRoofline.from_timing(timing, roofline_ms(cost, n, size, rates))
            for n, timing in timings.items()
        }
        results[stage] = StageProfile(flops=cost.flops, weight_bytes=cost.weights * size, measurements=at)
        report(stopwatch.at(done))
    return results


def _timings(models: ProfiledModels, stage: str, ns: Sequence[int], rounds: int) -> dict[int, Timing]:
    """Up to the batch for which memory does not suffice."""
    workloads, results = StageWorkloads(models), {}
    for n in ns:
        try:
            results[n] = measure_time(workloads.of(stage, n), models.generator.device, rounds, WARM_UP)
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
            break
    free_memory()
    return results


# FOLDED: Every way to pick the best of N measured as a whole, all side by side.


STRATEGIES: dict[str, type[SearchStrategy]] = {each.name: each for each in (Official, DecodeAll, Forejudge)}
_MEMORY_NS = (1, 8)  # the N at which the memory of judging is measured, beside those asked for


def new_strategies(models: ProfiledModels, names: Sequence[str], max_batch_size: int) -> list[SearchStrategy]:
    """Each with all verifiers that it takes, for up to `max_batch_size` candidates; none named stands for all that have one.

    Raises InvalidRequest for a strategy that there is not, or that none of the verifiers suits.
    """
    kinds = {name: _supported_kinds(models, name) for name in names or STRATEGIES}
    for name in names:
        if not kinds[name]:
            raise InvalidRequest(
                f"strategy {name} needs a verifier that reads {STRATEGIES[name].required_input}: name one"
            )
    return [
        STRATEGIES[name](models, kind, max_batch_size) for name, input_kinds in kinds.items() for kind in input_kinds
    ]


def check_strategies(names: Sequence[str]) -> None:
    """Raises InvalidRequest for one that there is not."""
    for name in names:
        if name not in STRATEGIES:
            raise InvalidRequest(f"unknown strategy {name!r}: expected {', '.join(STRATEGIES)}")


def _supported_kinds(models: ProfiledModels, strategy: str) -> list[str]:
    """Of the verifiers that a strategy takes."""
    return [kind for kind, verifier in models.verifiers.items() if STRATEGIES[strategy].supports(verifier)]


def profile_strategies(
    strategies: Sequence[SearchStrategy], ns: Sequence[int], rounds: int, rates: DeviceRates, report: ProgressCallback
) -> tuple[StrategyProfile, ...]:
    """With each of `ns` candidates, from the prompt to the picture. They take turns in every round."""
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
    # On a CPU tensors are counted as operations leave them behind; what is compiled has no such operations.
    measured_strategy = strategy if device.type == "cuda" else strategy.eager
    return Memory.from_peaks(
        scoring={n: peak_memory(measured_strategy.scoring(_seeds(n)), device) for n in sorted({*_MEMORY_NS, *ns})},
        end_to_end={n: peak_memory(partial(measured_strategy.run, _seeds(n)), device) for n in ns},
        weights=strategy.models.weight_bytes(strategy.kind),
    )


def _seeds(n: int) -> tuple[int, ...]:
    """The same for all ways, so that all draw the same candidates."""
    return tuple(range(n))


SEARCHES_PER_BUDGET = 100  # with each budget
_ON_CPU = "of a CPU: they say nothing of a GPU"
_ON_GPU = "of a GPU, by its own clock"


def profile(
    models: ProfiledModels,
    ns: Sequence[int],
    rounds: int,
    strategies: Sequence[str],
    report: ProgressCallback,
    budgets_ms: Sequence[int] = (),
) -> Profile:
    """Measure with each of `ns` candidates, in so many rounds; for `strategies` see `new_strategies`.

    For each budget 100 searches of ours. Raises InvalidRequest for a strategy that cannot be run, a size that the
    generator cannot draw, and a budget in which nothing fits.
    """
    generator = models.generator
    conditioning = models.conditioning
    search = _search(models) if budgets_ms else None
    if search:  # a budget in which nothing fits is refused now, not when all else is measured
        search(models.prompt, budget_ms=min(budgets_ms), sampling=models.sampling)
    profiled_strategies = new_strategies(models, strategies, max(ns))
    rates = device_rates(generator.device, generator.dtype)
    stages = profile_stages(models, ns, rounds, rates, report)
    results = profile_strategies(profiled_strategies, ns, rounds, rates, report)
    settings = ProfileSettings(
        device_note=_ON_GPU if generator.device.type == "cuda" else _ON_CPU,
        generator=generator.name,
        verifiers={kind: verifier.name for kind, verifier in models.verifiers.items()},
        num_prefix_blocks=models.blocks,
        ns=tuple(ns),
        height=conditioning.size[0],
        width=conditioning.size[1],
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


def _search(models: ProfiledModels) -> BestOfN:
    """With the first verifier that reads a hidden state or a latent. The prompt is encoded anew each time."""
    verifiers = [verifier for verifier in models.verifiers.values() if Forejudge.supports(verifier)]
    if not verifiers:
        raise InvalidRequest(f"a time budget needs a verifier that reads {Forejudge.required_input}: name one")
    return BestOfN(models.generator, verifiers[0], prompt_cache_size=0)


def _measure_deadlines(
    models: ProfiledModels, search: BestOfN, budgets_ms: Sequence[int], report: ProgressCallback
) -> list[DeadlineAdherence]:
    stopwatch, results = Stopwatch("keeping budgets", 0, len(budgets_ms)), []
    for done, budget_ms in enumerate(budgets_ms, start=1):
        results.append(
            measure_deadline_adherence(search, [models.prompt] * SEARCHES_PER_BUDGET, budget_ms, models.sampling)
        )
        report(stopwatch.at(done))
    return results
