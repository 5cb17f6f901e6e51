"""Rooflines: bound by FLOPs or by reading the weights."""

import itertools

import pytest
import torch

from forejudge.profiling.figures import DeviceRates
from forejudge.profiling.measure import StageCost
from forejudge.profiling.roofline import StageRun, device_rates, roofline_ms, total_flops, total_roofline_ms
from tests.support.doubles import CPU

RATES = DeviceRates(flops_per_second=1000, bytes_per_second=100)


def test_the_roofline_is_the_longer_of_flops_and_weights() -> None:
    cost = StageCost(flops=10, weight_bytes=8)
    assert roofline_ms(cost, 1, RATES) == pytest.approx(80), "8 bytes at 100 a second"
    assert roofline_ms(cost, 20, RATES) == pytest.approx(200), "200 FLOPs at 1000 a second"


def test_weights_are_read_once_for_a_batch_and_again_for_the_next() -> None:
    costs = {"read": StageCost(flops=1, weight_bytes=100)}
    at_once, one_by_one = [StageRun("read", 8)], [StageRun("read", 1, 8)]
    assert total_flops(at_once, costs) == total_flops(one_by_one, costs) == 8
    assert total_roofline_ms(one_by_one, costs, RATES) == pytest.approx(8 * total_roofline_ms(at_once, costs, RATES))


def test_rates_are_those_of_the_largest_product_and_of_a_copy(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every run takes a second on this clock, whatever its size."""
    ticks = itertools.count()
    monkeypatch.setattr("forejudge.profiling.measure.perf_counter", lambda: float(next(ticks)))
    rates = device_rates(CPU, torch.float32)
    assert rates.flops_per_second == pytest.approx(2 * 1024**3)
    assert rates.bytes_per_second == pytest.approx(2 * 2**27), "a copy reads and writes every byte"
