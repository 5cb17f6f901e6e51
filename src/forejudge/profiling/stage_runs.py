"""What a whole run consists of: stages, run so many times, each for a batch. Pure functions."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from forejudge.profiling.device_rates import DeviceRates
from forejudge.profiling.floors import floor_milliseconds
from forejudge.profiling.stage_costs import StageCost


@dataclass(frozen=True)
class StageRun:
    """A stage run `times` times over, each for `batch` candidates."""

    stage: str
    batch: int
    times: int = 1


def total_flops(runs: Iterable[StageRun], costs: Mapping[str, StageCost]) -> int:
    """Floating-point operations of all of them."""
    return sum(run.times * run.batch * costs[run.stage].flops for run in runs)


def total_floor(
    runs: Iterable[StageRun], costs: Mapping[str, StageCost], weight_bytes: int, rates: DeviceRates
) -> float:
    """Their floors in milliseconds, one after the other; `weight_bytes` are those of one weight."""
    return sum(run.times * floor_milliseconds(costs[run.stage], run.batch, weight_bytes, rates) for run in runs)
