"""Rounds, turns and quartiles, by a clock that a test moves."""

import pytest

from forejudge.profiling import measure
from forejudge.profiling.figures import Timing
from forejudge.profiling.measure import measure_time, measure_time_interleaved
from tests.support.doubles import CPU, FakeClock


@pytest.fixture
def time(monkeypatch: pytest.MonkeyPatch) -> FakeClock:
    """In the place of the machine's."""
    clock = FakeClock()
    monkeypatch.setattr(measure, "perf_counter", clock)
    return clock


def test_the_median_and_the_quartiles_of_the_rounds() -> None:
    found = Timing.from_rounds([5.0, 1.0, 2.0, 4.0, 3.0])
    assert (found.lower_quartile, found.median, found.upper_quartile) == (2, 3, 4)
    assert (found.fastest, found.rounds) == (1, 5)


def test_rounds_that_warm_up_are_not_counted(time: FakeClock) -> None:
    seconds = iter([9.0, 9.0, 0.001, 0.003, 0.002])
    found = measure_time(lambda: time.advance(next(seconds)), CPU, rounds=3, warm_up=2)
    assert found.median == pytest.approx(2)
    assert found.rounds == 3


def test_workloads_take_turns(time: FakeClock) -> None:
    order: list[str] = []
    rounds: list[int] = []

    def work(name: str, seconds: float) -> None:
        order.append(name)
        time.advance(seconds)

    workloads = {"short": lambda: work("short", 0.001), "long": lambda: work("long", 0.01)}
    found = measure_time_interleaved(workloads, CPU, rounds=2, warm_up=1, on_round=rounds.append)
    assert order == ["short", "long"] * 3
    assert rounds == [1, 2, 3]
    assert {name: timing.median for name, timing in found.items()} == pytest.approx({"short": 1, "long": 10})
