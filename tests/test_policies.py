"""Limits, and the pace that keeps them; time is told, not taken."""

import math

import pytest

from forejudge.errors import InvalidRequest
from forejudge.policies import LatencyEstimate, SearchLimits, SearchPolicy, StopReason

ENCODE = 0.02
COSTS = LatencyEstimate(batch={1: 0.01, 2: 0.015, 4: 0.025, 8: 0.045}, finish=0.03, min_seconds=0.06)


@pytest.mark.parametrize(
    ("limits", "said"),
    [
        ({"n": 0}, "n = 0"),
        ({"n": -3}, "n = -3"),
        ({"max_n": 0}, "max_n = 0"),
        ({"budget_ms": 0}, "budget_ms = 0"),
        ({"budget_ms": -20.5}, "budget_ms = -20.5"),
        ({"budget_ms": math.nan}, "budget_ms = nan"),
        ({"until": 0}, "until = 0"),
        ({"until": 1.01}, "until = 1.01"),
        ({"until": math.nan}, "until = nan"),
    ],
)
def test_limits_that_no_search_can_keep_are_refused(limits: dict, said: str) -> None:
    with pytest.raises(InvalidRequest, match=said):
        SearchLimits(**limits)


@pytest.mark.parametrize(
    ("limits", "cap", "reason"),
    [
        (SearchLimits(), 8, "n"),
        (SearchLimits(n=3), 3, "n"),
        (SearchLimits(n=64), 64, "n"),
        (SearchLimits(n=100), 100, "n"),
        (SearchLimits(max_n=5), 5, "max_n"),
        (SearchLimits(max_n=100), 8, "n"),
        (SearchLimits(budget_ms=100), 64, "max_n"),
        (SearchLimits(until=0.9), 64, "max_n"),
        (SearchLimits(until=0.9, max_n=8), 8, "max_n"),
        (SearchLimits(until=0.9, n=100), 100, "n"),
        (SearchLimits(budget_ms=100, until=0.9, n=4, max_n=2), 4, "n"),
    ],
)
def test_a_search_has_a_cap_and_a_name_for_it(limits: SearchLimits, cap: int, reason: StopReason) -> None:
    assert (limits.cap, limits.reason_at_cap) == (cap, reason)
    assert SearchPolicy(limits, 1, costs=COSTS if limits.budget_ms else None).stopped_by(cap) == reason


def sizes(policy: SearchPolicy, seconds_per_candidate: float = 0.0, encode: float = 0.0) -> tuple[list[int], float]:
    """The chunks of a search under a clock that only candidates move, and when the last of them was judged."""
    drawn: list[int] = []
    elapsed = encode
    while size := policy.next_batch(sum(drawn), elapsed):
        drawn.append(size)
        elapsed += size * seconds_per_candidate
        policy.record_batch(size, size * seconds_per_candidate)
    return drawn, elapsed


@pytest.mark.parametrize(
    ("n", "max_batch_size", "batches"), [(8, 8, [8]), (8, 3, [3, 3, 2]), (3, 1, [1, 1, 1]), (2, 32, [2])]
)
def test_without_a_budget_chunks_are_as_large_as_may_be(n: int, max_batch_size: int, batches: list[int]) -> None:
    assert sizes(SearchPolicy(SearchLimits(n=n), max_batch_size))[0] == batches


def test_chunks_are_halved_once_memory_ran_out() -> None:
    policy = SearchPolicy(SearchLimits(n=12), 8)
    assert policy.next_batch(0, 0.0) == 8
    policy.on_out_of_memory(8)
    assert sizes(policy)[0] == [4, 4, 4]


@pytest.mark.parametrize("budget_ms", [70, 75, 100, 150, 300, 1000])
@pytest.mark.parametrize("speed", [0.5, 1.0, 1.1])
def test_the_winner_is_finished_within_the_budget(budget_ms: float, speed: float) -> None:
    """Chunks that take up to a tenth more than measured break no promise, whatever the budget."""
    policy = SearchPolicy(SearchLimits(budget_ms=budget_ms, max_n=10_000), 8, costs=COSTS)
    elapsed, drawn = ENCODE, 0
    while size := policy.next_batch(drawn, elapsed):
        policy.record_batch(size, COSTS.batch[size] * speed)
        elapsed, drawn = elapsed + COSTS.batch[size] * speed, drawn + size
    assert drawn >= 1
    assert elapsed + COSTS.finish * speed <= budget_ms / 1000 * 1.02
    assert policy.stopped_by(drawn) == "budget_ms"


def test_a_larger_budget_draws_more() -> None:
    drawn = [
        sum(sizes(SearchPolicy(SearchLimits(budget_ms=ms), 8, costs=COSTS), 0.006)[0]) for ms in (60, 100, 200, 400)
    ]
    assert drawn == sorted(drawn)
    assert len(set(drawn)) == len(drawn)


def test_one_candidate_is_always_drawn() -> None:
    policy = SearchPolicy(SearchLimits(budget_ms=61), 8, costs=COSTS)
    assert policy.next_batch(0, elapsed=5.0) == 1
    assert policy.next_batch(1, elapsed=5.0) == 0


def test_with_a_budget_the_cap_holds_too() -> None:
    policy = SearchPolicy(SearchLimits(budget_ms=1e6, max_n=11), 8, costs=COSTS)
    assert sizes(policy)[0] == [8, 2, 1]
    assert policy.stopped_by(11) == "max_n"


def test_a_slow_chunk_makes_the_next_ones_smaller() -> None:
    policy = SearchPolicy(SearchLimits(budget_ms=200), 8, costs=COSTS)
    assert policy.next_batch(8, elapsed=0.1) == 8
    policy.record_batch(4, 2 * COSTS.batch[4])
    assert policy.next_batch(8, elapsed=0.1) == 1
    policy.record_batch(4, COSTS.batch[4] / 2)  # a fast one is no promise
    assert policy.next_batch(8, elapsed=0.1) == 1


def test_room_is_kept_for_every_winner() -> None:
    budget, costs = SearchLimits(budget_ms=200), {"costs": COSTS}
    assert SearchPolicy(budget, 8, top_k=1, **costs).next_batch(8, elapsed=0.1) == 8
    assert SearchPolicy(budget, 8, top_k=2, **costs).next_batch(8, elapsed=0.1) == 4
    assert SearchPolicy(budget, 8, top_k=3, **costs).next_batch(8, elapsed=0.1) == 0


def test_what_did_not_fit_in_memory_is_never_drawn() -> None:
    costs = LatencyEstimate({1: 0.01, 2: 0.015, 4: math.inf}, 0.03, 0.06)
    assert SearchPolicy(SearchLimits(budget_ms=1e6), 8, costs=costs).next_batch(0, elapsed=0.0) == 2


def test_a_budget_too_small_for_one_candidate_is_refused() -> None:
    with pytest.raises(InvalidRequest, match=r"budget_ms = 59\.9 is too small.* takes 60 ms"):
        SearchPolicy(SearchLimits(budget_ms=59.9), 8, costs=COSTS)
    assert SearchPolicy(SearchLimits(budget_ms=60.1), 8, costs=COSTS).next_batch(0, ENCODE) == 1
