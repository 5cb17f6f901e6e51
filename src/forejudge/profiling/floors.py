"""The least time that work can take on a device. Pure functions."""

from forejudge.profiling.device_rates import DeviceRates
from forejudge.profiling.stage_costs import StageCost


def floor_milliseconds(cost: StageCost, batch: int, weight_bytes: int, rates: DeviceRates) -> float:
    """Of a stage for a batch: its operations at the rate of matrix products, or its weights read once, if that is more.

    `weight_bytes` are those of one weight. What else is read and written is left out, so no work is as fast as this.
    """
    computing = batch * cost.flops / rates.flops_per_second
    reading = cost.weights * weight_bytes / rates.bytes_per_second
    return 1000 * max(computing, reading)
