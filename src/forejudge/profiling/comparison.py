"""What one more candidate costs, and what one way to pick saves against another. Pure functions."""

from collections.abc import Mapping, Sequence

from forejudge.profiling.official import Official
from forejudge.profiling.profile_figures import OneMore, Saving, StrategyFigures
from forejudge.profiling.strategies import Forejudge

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
