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
    Measured,
    Memory,
    OneMore,
    Profile,
    Saving,
    Settings,
    StageFigures,
    StrategyFigures,
)
from forejudge.profiling.measure import Timing, peak_memory, timed, timed_in_turns
from forejudge.profiling.models import Profiled, judging_stage
from forejudge.profiling.roofline import DeviceRates, device_rates, floor_milliseconds
from forejudge.profiling.searches import KeptBudget, kept_budget
from forejudge.profiling.stages import CLIP, DECODE, ENCODE, PREFIX, SUFFIX
from forejudge.profiling.strategies import DecodeAll, Forejudge, Official, Strategy
from forejudge.progress import Report, Stopwatch
from forejudge.result import provenance
from forejudge.types import IMAGE, Candidates, Stage, latent_stage, prefix_stage
from forejudge.verifiers.inputs import Reading

# FOLDED: What one more candidate costs, and what one way to pick saves against another. Pure functions.


_PIXELS = "clip"  # what everything is measured against


def one_more(milliseconds: Mapping[int, float], flops: Mapping[int, int], peak: Mapping[int, int]) -> OneMore | None:
    """From costs by N, `peak` the most memory while candidates are judged; None where there is only one N."""
    if len(milliseconds) < 2:
        return None
    of_the_same = {n: peak[n] for n in milliseconds}
    return OneMore(milliseconds=_slope(milliseconds), flops=_slope(flops), bytes=_slope(of_the_same))


def _slope(cost: Mapping[int, float]) -> float:
    first, last = min(cost), max(cost)
    return (cost[last] - cost[first]) / (last - first)


def savings(found: Sequence[StrategyFigures]) -> tuple[Saving, ...]:
    """Of each of ours against the others with its verifier or with CLIP; and, as the paper compares, of the release's.

    None without a slope.
    """
    return tuple(
        _saving((one, one.one_more), (other, other.one_more))
        for one in found
        for other in found
        if one.one_more and other.one_more and _are_compared(one, other)
    )


def _are_compared(one: StrategyFigures, other: StrategyFigures) -> bool:
    if one.strategy == Forejudge.name:
        return other.strategy != Forejudge.name and other.verifier in (one.verifier, _PIXELS)
    return one.strategy == other.strategy == Official.name and other.verifier == _PIXELS != one.verifier


def _saving(one: tuple[StrategyFigures, OneMore], other: tuple[StrategyFigures, OneMore]) -> Saving:
    (first, slope), (second, reference) = one, other
    return Saving(
        of=first.name,
        against=second.name,
        milliseconds=_saved(slope.milliseconds, reference.milliseconds),
        flops=_saved(slope.flops, reference.flops),
        judging_bytes=_saved(_least(first.memory.judging_with_weights), _least(second.memory.judging_with_weights)),
        joint_bytes=_saved(_least(first.memory.joint_with_weights), _least(second.memory.joint_with_weights)),
    )


def _least(by_n: Mapping[int, int]) -> int:
    """At the smallest N."""
    return by_n[min(by_n)]


def _saved(cost: float, reference: float) -> float:
    """In per cent."""
    return 100 * (1 - cost / reference)


# FOLDED: Each stage as a piece of work of its own, for a batch that stands ready where the stage begins.


@dataclass(frozen=True)
class StageWorks:
    """The parts of a search, made of the very calls of which a search consists."""

    models: Profiled

    def of(self, stage: str, batch: int) -> Callable[[], object]:
        """A stage that `Profiled.costs` names. What comes before it is done here; the work itself can be repeated."""
        models = self.models
        if stage == ENCODE:
            return partial(models.generator.encode_without_padding, models.prompt, models.sampling)
        if stage == PREFIX:
            return partial(self._drawn, batch, self._cut)
        if stage in (SUFFIX, DECODE):
            begin, end = (self._cut, latent_stage()) if stage == SUFFIX else (latent_stage(), IMAGE)
            return partial(models.generator.advance, self._drawn(batch, begin).to_keep(), [end])
        if stage == CLIP:
            verifier = next(each for each in models.verifiers.values() if IMAGE in each.reads)
            return partial(verifier.reading.tokens, self._drawn(batch, IMAGE))
        kind = next(kind for kind in models.verifiers if judging_stage(kind) == stage)
        return self._judging(kind, batch)

    @property
    def _cut(self) -> Stage:
        return prefix_stage(self.models.blocks)

    def _drawn(self, batch: int, stage: Stage) -> Candidates:
        generator = self.models.generator
        return generator.advance(generator.start(self.models.conditioning, tuple(range(batch))), [stage])

    def _judging(self, kind: str, batch: int) -> Callable[[], object]:
        verifier = copy(self.models.verifiers[kind])
        (stage,) = verifier.reads
        candidates = self._drawn(batch, stage)
        verifier.reading = _Seen(verifier.reading, verifier.reading.tokens(candidates))
        return partial(verifier.judge, self.models.prompt, candidates)


class _Seen(Reading):
    """A reading that has looked already."""

    def __init__(self, reading: Reading, tokens_NTD: Tensor) -> None:
        self.name, self.stage, self._reading, self._tokens_NTD = reading.name, reading.stage, reading, tokens_NTD

    def width(self, architecture: Architecture) -> int:
        """See `Reading.width`."""
        return self._reading.width(architecture)

    def tokens(self, candidates: Candidates) -> Tensor:
        """See `Reading.tokens`."""
        return self._tokens_NTD


# FOLDED: Every stage measured by itself.


def stage_figures(
    models: Profiled, ns: Sequence[int], rounds: int, rates: DeviceRates, report: Report
) -> dict[str, StageFigures]:
    """By stage, each with batches of `ns` candidates; the prompt is encoded but once."""
    size, found = models.generator.dtype.itemsize, {}
    stopwatch = Stopwatch("timing stages", 0, len(models.costs))
    for done, (stage, cost) in enumerate(models.costs.items(), start=1):
        timings = _timings(models, stage, (1,) if stage == ENCODE else ns, rounds)
        at = {n: Measured.against(timing, floor_milliseconds(cost, n, size, rates)) for n, timing in timings.items()}
        found[stage] = StageFigures(flops=cost.flops, weight_bytes=cost.weights * size, at=at)
        report(stopwatch.at(done))
    return found


def _timings(models: Profiled, stage: str, ns: Sequence[int], rounds: int) -> dict[int, Timing]:
    """Up to the batch for which memory does not suffice."""
    works, found = StageWorks(models), {}
    for n in ns:
        try:
            found[n] = timed(works.of(stage, n), models.generator.device, rounds, WARM_UP)
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
            break
    free_memory()
    return found


# FOLDED: Every way to pick the best of N measured as a whole, all side by side.


STRATEGIES: dict[str, type[Strategy]] = {each.name: each for each in (Official, DecodeAll, Forejudge)}
_JUDGED = (1, 8)  # the N at which the memory of judging is measured, beside those asked for


def new_strategies(models: Profiled, names: Sequence[str], most: int) -> list[Strategy]:
    """Each with all verifiers that it takes, for up to `most` candidates; none named stands for all that have one.

    Raises InvalidRequest for a strategy that there is not, or that none of the verifiers suits.
    """
    kinds = {name: _kinds(models, name) for name in names or STRATEGIES}
    for name in names:
        if not kinds[name]:
            raise InvalidRequest(f"strategy {name} needs a verifier that reads {STRATEGIES[name].needs}: name one")
    return [STRATEGIES[name](models, kind, most) for name, taken in kinds.items() for kind in taken]


def check_strategies(names: Sequence[str]) -> None:
    """Raises InvalidRequest for one that there is not."""
    for name in names:
        if name not in STRATEGIES:
            raise InvalidRequest(f"unknown strategy {name!r}: expected {', '.join(STRATEGIES)}")


def _kinds(models: Profiled, strategy: str) -> list[str]:
    """Of the verifiers that a strategy takes."""
    return [kind for kind, verifier in models.verifiers.items() if STRATEGIES[strategy].takes(verifier)]


def strategy_figures(
    strategies: Sequence[Strategy], ns: Sequence[int], rounds: int, rates: DeviceRates, report: Report
) -> tuple[StrategyFigures, ...]:
    """With each of `ns` candidates, from the prompt to the picture. They take turns in every round."""
    stopwatch = Stopwatch("timing strategies", 0, WARM_UP + rounds)
    works = {(place, n): partial(each.run, _seeds(n)) for place, each in enumerate(strategies) for n in ns}
    device = strategies[0].models.generator.device
    timings = timed_in_turns(works, device, rounds, WARM_UP, lambda done: report(stopwatch.at(done)))
    return tuple(
        _figures(strategy, {n: timings[place, n] for n in ns}, rates) for place, strategy in enumerate(strategies)
    )


def _figures(strategy: Strategy, timings: dict[int, Timing], rates: DeviceRates) -> StrategyFigures:
    memory, flops = _memory(strategy, list(timings)), {n: strategy.flops(n) for n in timings}
    return StrategyFigures(
        strategy=strategy.name,
        verifier=strategy.kind,
        batch_size=strategy.batch_size,
        flops=flops,
        at={n: Measured.against(timing, strategy.floor_milliseconds(n, rates)) for n, timing in timings.items()},
        memory=memory,
        one_more=one_more({n: timing.median for n, timing in timings.items()}, flops, memory.judging),
    )


def _memory(strategy: Strategy, ns: Sequence[int]) -> Memory:
    device = strategy.models.generator.device
    # On a CPU tensors are counted as operations leave them behind; what is compiled has no such operations.
    counted = strategy if device.type == "cuda" else strategy.plain
    return Memory.of(
        judging={n: peak_memory(counted.judging(_seeds(n)), device) for n in sorted({*_JUDGED, *ns})},
        joint={n: peak_memory(partial(counted.run, _seeds(n)), device) for n in ns},
        weights=strategy.models.weight_bytes(strategy.kind),
    )


def _seeds(n: int) -> tuple[int, ...]:
    """The same for all ways, so that all draw the same candidates."""
    return tuple(range(n))


SEARCHES = 100  # with each budget
_ON_CPU = "of a CPU: they say nothing of a GPU"
_ON_GPU = "of a GPU, by its own clock"


def profile(
    models: Profiled,
    ns: Sequence[int],
    rounds: int,
    strategies: Sequence[str],
    report: Report,
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
    compared = new_strategies(models, strategies, max(ns))
    rates = device_rates(generator.device, generator.dtype)
    stages = stage_figures(models, ns, rounds, rates, report)
    found = strategy_figures(compared, ns, rounds, rates, report)
    settings = Settings(
        figures=_ON_GPU if generator.device.type == "cuda" else _ON_CPU,
        generator=generator.name,
        verifiers={kind: verifier.name for kind, verifier in models.verifiers.items()},
        prefix_blocks=models.blocks,
        ns=tuple(ns),
        height=conditioning.size[0],
        width=conditioning.size[1],
        device=str(generator.device),
        dtype=dtype_name(generator.dtype),
        compiled=models.plain is not None,
        rounds=rounds,
        warm_up=WARM_UP,
    )
    return Profile(
        made=provenance(generator.device),
        settings=settings,
        rates=rates,
        stages=stages,
        strategies=found,
        savings=savings(found),
        budgets=tuple(_kept_budgets(models, search, budgets_ms, report)) if search else (),
    )


def _search(models: Profiled) -> BestOfN:
    """With the first verifier that reads a hidden state or a latent. The prompt is encoded anew each time."""
    verifiers = [verifier for verifier in models.verifiers.values() if Forejudge.takes(verifier)]
    if not verifiers:
        raise InvalidRequest(f"a time budget needs a verifier that reads {Forejudge.needs}: name one")
    return BestOfN(models.generator, verifiers[0], prompts_kept=0)


def _kept_budgets(models: Profiled, search: BestOfN, budgets_ms: Sequence[int], report: Report) -> list[KeptBudget]:
    stopwatch, found = Stopwatch("keeping budgets", 0, len(budgets_ms)), []
    for done, budget_ms in enumerate(budgets_ms, start=1):
        found.append(kept_budget(search, [models.prompt] * SEARCHES, budget_ms, models.sampling))
        report(stopwatch.at(done))
    return found
