"""Every way to pick the best of N measured as a whole, all side by side."""

from collections.abc import Sequence
from functools import partial

from forejudge.errors import InvalidRequest
from forejudge.profiling.comparison import one_more
from forejudge.profiling.device_rates import DeviceRates
from forejudge.profiling.memory import peak_memory
from forejudge.profiling.official import Official
from forejudge.profiling.profile_figures import WARM_UP, Measured, Memory, StrategyFigures
from forejudge.profiling.profiled import Profiled
from forejudge.profiling.stage_timing import Timing, timed_in_turns
from forejudge.profiling.strategies import DecodeAll, Forejudge, Strategy
from forejudge.progress import Report, Stopwatch

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
