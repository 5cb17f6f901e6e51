"""Every stage measured by itself."""

from collections.abc import Sequence

from forejudge.device import free_memory, is_out_of_memory
from forejudge.profiling.device_rates import DeviceRates
from forejudge.profiling.floors import floor_milliseconds
from forejudge.profiling.profile_figures import WARM_UP, Measured, StageFigures
from forejudge.profiling.profiled import Profiled
from forejudge.profiling.stage_costs import ENCODE
from forejudge.profiling.stage_timing import Timing, timed
from forejudge.profiling.stage_works import StageWorks
from forejudge.progress import Report, Stopwatch


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
