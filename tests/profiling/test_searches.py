"""Searches under a time budget: predicted N, actual N, and the share that ends in time."""

import pytest

from forejudge.best_of_n import BestOfN
from forejudge.errors import InvalidRequest
from forejudge.profiling.searches import measure_deadline_adherence
from tests.support.doubles import PROMPT, FakeClock, ScriptedGenerator, ScriptedVerifier

PROMPTS = [f"{PROMPT} {number}" for number in range(10)]


@pytest.fixture
def time(monkeypatch: pytest.MonkeyPatch) -> FakeClock:
    fake = FakeClock()
    monkeypatch.setattr("forejudge.session.perf_counter", fake)
    monkeypatch.setattr("forejudge.profiling.searches.perf_counter", fake)
    return fake


def search(time: FakeClock, slow: range = range(0)) -> BestOfN:
    """Each stage takes 10 ms and 1 ms for every candidate; the calls in `slow` take ten times as long."""
    calls = iter(range(10**6))

    def advance(count: int) -> None:
        time.advance((0.010 + 0.001 * count) * (10 if next(calls) in slow else 1))

    return BestOfN(ScriptedGenerator(before_advance=advance), ScriptedVerifier({}))


def test_budgets_are_kept_where_time_is_even(time: FakeClock) -> None:
    found = measure_deadline_adherence(search(time), PROMPTS, budget_ms=70)
    # 16 candidates take 26 ms, 4 more 14 and the winner 22; a batch starts if 1.15 times as much time is left.
    assert (found.median_predicted_n, found.min_n, found.median_n) == (20, 20, 20)
    assert (found.runs, found.on_time, found.on_time_with_grace, found.reached_predicted_n) == (10, 1, 1, 1)
    assert found.on_time_interval == (0.7225, 1.0), "ten of ten, as Wilson has it"
    assert (found.milliseconds.median, found.slowest) == pytest.approx((62, 62))


def test_a_search_that_was_disturbed_counts_as_late(time: FakeClock) -> None:
    measuring = 3 * 3 * 6 + 4  # rounds of three calls for the sizes 1 to 32, then a search that is not counted
    found = measure_deadline_adherence(search(time, slow=range(measuring, measuring + 1)), PROMPTS, budget_ms=70)
    assert found.on_time == found.on_time_with_grace == 0.9
    assert found.on_time_interval == (0.5958, 0.9821)
    assert found.slowest == pytest.approx(260 + 22)
    assert found.reached_predicted_n == 0.9, "the other searches reached the predicted N"


def test_a_budget_in_which_nothing_fits_is_refused(time: FakeClock) -> None:
    with pytest.raises(InvalidRequest, match="budget_ms = 20 is too small"):
        measure_deadline_adherence(search(time), PROMPTS, budget_ms=20)
