"""Search policies, told the time instead of measuring it."""

import math
from dataclasses import replace

import pytest

from forejudge.errors import InvalidRequest
from forejudge.expected_improvement import NextLogOdds, Prior
from forejudge.options import SearchOptions
from forejudge.policies import (
    POLICIES,
    AllPolicies,
    Deadline,
    ExpectedImprovement,
    FixedN,
    LatencyEstimate,
    SearchPolicy,
    SearchState,
    StopReason,
    UntilProbability,
    expected_n,
)
from forejudge.types import Verdict

ENCODE = 0.02
COSTS = LatencyEstimate(batch={1: 0.01, 2: 0.015, 4: 0.025, 8: 0.045}, finish=0.03, min_seconds=0.06)
PRIOR = Prior(mean=0.5, weight=1.0, min_deviation=1.0)


def policy(**options: float) -> AllPolicies:
    return AllPolicies.from_options(SearchOptions.model_validate(options), lambda seconds: COSTS, PRIOR)


def next_batch(policy: SearchPolicy, num_generated: int, elapsed: float, *timings: tuple[int, float]) -> int:
    return policy.next_batch(SearchState(8, elapsed, num_generated=num_generated, batch_timings=timings))


def stopped_by(policy: SearchPolicy, num_generated: int, elapsed: float = 0.0) -> StopReason:
    return policy.stopped_by(SearchState(8, elapsed, num_generated=num_generated))


def test_each_policy_is_built_from_its_option_alone() -> None:
    options = {"until": 0.9, "n": 3, "price": 0.01, "budget_ms": 100.0}
    for name, policy_class in POLICIES.items():
        asked = SearchOptions(**{name: options[name]})
        assert isinstance(policy_class.from_options(asked, lambda _: COSTS, PRIOR), policy_class)
    assert policy(n=3).policies == (FixedN(3),)
    every = (UntilProbability(0.9), FixedN(3), ExpectedImprovement(0.01, PRIOR, COSTS.batch), Deadline(100.0, COSTS))
    assert policy(**options).policies == every


def test_a_deadline_has_its_costs_measured_in_seconds() -> None:
    asked: list[float] = []

    def measure(seconds: float) -> LatencyEstimate:
        asked.append(seconds)
        return COSTS

    AllPolicies.from_options(SearchOptions(budget_ms=250), measure)
    assert asked == [0.25]
    AllPolicies.from_options(SearchOptions(budget_ms=250, price=0.01), measure, PRIOR)
    assert asked == [0.25] * 3


@pytest.mark.parametrize(
    ("options", "cap", "reason"),
    [
        ({}, 8, "n"),
        ({"n": 3}, 3, "n"),
        ({"n": 64}, 64, "n"),
        ({"n": 100}, 100, "n"),
        ({"max_n": 5}, 5, "max_n"),
        ({"max_n": 100}, 8, "n"),
        ({"budget_ms": 100}, 64, "max_n"),
        ({"until": 0.9}, 64, "max_n"),
        ({"price": 0, "max_n": 9}, 9, "max_n"),
        ({"price": 0, "n": 100}, 100, "n"),
        ({"until": 0.9, "max_n": 8}, 8, "max_n"),
        ({"until": 0.9, "n": 100}, 100, "n"),
        ({"budget_ms": 100, "until": 0.9, "n": 4, "max_n": 2}, 4, "n"),
    ],
)
def test_a_search_has_a_cap_and_a_name_for_it(options: dict[str, float], cap: int, reason: StopReason) -> None:
    assert SearchOptions.model_validate(options).cap == cap
    assert stopped_by(policy(**options), cap) == reason


def sizes(policy: SearchPolicy, seconds_per_candidate: float = 0.0, max_batch_size: int = 8) -> list[int]:
    """Return the batches of a search under a clock that only candidates move."""
    state, batches = SearchState(max_batch_size), list[int]()
    while size := policy.next_batch(state):
        batches.append(size)
        state = after(state, size, size * seconds_per_candidate)
    return batches


def after(state: SearchState, size: int, seconds: float) -> SearchState:
    return replace(
        state,
        num_generated=state.num_generated + size,
        elapsed=state.elapsed + seconds,
        batch_timings=(*state.batch_timings, (size, seconds)),
    )


@pytest.mark.parametrize(
    ("n", "max_batch_size", "batches"), [(8, 8, [8]), (8, 3, [3, 3, 2]), (3, 1, [1, 1, 1]), (2, 32, [2])]
)
def test_without_a_budget_batches_are_as_large_as_allowed(n: int, max_batch_size: int, batches: list[int]) -> None:
    assert sizes(policy(n=n), max_batch_size=max_batch_size) == batches


def sure_of(*probabilities: float | None) -> list[Verdict]:
    return [Verdict(score=0.0, probability=probability) for probability in probabilities]


@pytest.mark.parametrize(("probability", "used"), [(0.3, 1), (0.4, 3), (0.7, 3), (0.9, 4), (0.95, 4)])
def test_candidates_behind_the_first_that_is_sure_enough_do_not_count(probability: float, used: int) -> None:
    verdicts = sure_of(0.3, 0.2, 0.7, 0.9)
    until = policy(until=probability)
    assert until.num_used(verdicts) == used
    state = SearchState(8, verdicts=tuple(verdicts[:used]), num_generated=4)
    assert (until.next_batch(state) == 0) is (probability < 0.95)


def test_without_a_probability_nothing_is_sure() -> None:
    assert UntilProbability(0.1).num_used(sure_of(None, None)) == 2
    assert UntilProbability(0.1).next_batch(SearchState(8, verdicts=tuple(sure_of(None, None)))) == 8


@pytest.mark.parametrize("budget_ms", [70, 75, 100, 150, 300, 1000])
@pytest.mark.parametrize("speed", [0.5, 1.0, 1.1])
def test_the_winner_is_finished_within_the_budget(budget_ms: float, speed: float) -> None:
    """Batches that take up to a tenth more than measured miss no deadline, whatever the budget."""
    deadline, state = policy(budget_ms=budget_ms, max_n=10_000), SearchState(8, ENCODE)
    while size := deadline.next_batch(state):
        state = after(state, size, COSTS.batch[size] * speed)
    assert state.num_generated >= 1
    assert state.elapsed + COSTS.finish * speed <= budget_ms / 1000 * 1.02
    assert deadline.stopped_by(state) == "budget_ms"


def test_a_larger_budget_generates_more() -> None:
    counts = [sum(sizes(policy(budget_ms=ms), 0.006)) for ms in (60, 100, 200, 400)]
    assert counts == sorted(counts)
    assert len(set(counts)) == len(counts)


def test_what_is_expected_within_a_budget_counts_the_time_gone_by() -> None:
    assert [expected_n(policy(budget_ms=200), 8, COSTS, elapsed) for elapsed in (0.0, 0.1, 0.2)] == [28, 10, 1]


def test_candidates_scored_without_a_clock_take_no_time() -> None:
    state = SearchState(8).extended(sure_of(0.2, 0.3), FixedN(3))
    assert (state.num_generated, state.elapsed, state.batch_timings) == (2, 0.0, ((2, 0.0),))


def test_one_candidate_is_always_generated() -> None:
    assert next_batch(policy(budget_ms=61), 0, elapsed=5.0) == 1
    assert next_batch(policy(budget_ms=61), 1, elapsed=5.0) == 0


def test_with_a_budget_the_cap_holds_too() -> None:
    capped = policy(budget_ms=1e6, max_n=11)
    assert sizes(capped) == [8, 2, 1]
    assert stopped_by(capped, 11) == "max_n"


def test_a_batch_starts_only_if_the_budget_holds_its_time_with_a_margin() -> None:
    deadline = Deadline(1150, LatencyEstimate({1: 0.5}, finish=0.5, min_seconds=1.0))
    assert [next_batch(deadline, 1, elapsed) for elapsed in (0.0, 0.001)] == [1, 0]


def test_a_slow_batch_makes_the_next_ones_smaller() -> None:
    deadline, slow, fast = policy(budget_ms=200), (4, 2 * COSTS.batch[4]), (4, COSTS.batch[4] / 2)
    assert next_batch(deadline, 8, 0.1) == 8
    assert next_batch(deadline, 8, 0.1, slow) == 1
    assert next_batch(deadline, 8, 0.1, slow, fast) == 1, "a fast one is no promise"


def test_policies_of_policies_name_the_option_that_stops_them() -> None:
    assert stopped_by(AllPolicies((policy(n=3, until=0.9),)), 3) == "n"


def test_room_is_kept_for_every_winner() -> None:
    assert [next_batch(policy(budget_ms=200, top_k=top_k), 8, elapsed=0.1) for top_k in (1, 2, 3)] == [8, 4, 0]


def test_batches_that_do_not_fit_in_memory_are_never_generated() -> None:
    costs = LatencyEstimate({1: 0.01, 2: 0.015, 4: math.inf}, 0.03, 0.06)
    assert next_batch(Deadline(1e6, costs), 0, elapsed=0.0) == 2


def test_a_budget_too_small_for_one_candidate_is_refused() -> None:
    with pytest.raises(InvalidRequest, match=r"budget_ms = 59\.9 is too small.* takes at least 60 ms"):
        policy(budget_ms=59.9)
    assert next_batch(policy(budget_ms=60.1), 0, ENCODE) == 1


def scored(*probabilities: float | None, max_batch_size: int = 8) -> SearchState:
    return SearchState(max_batch_size, verdicts=tuple(sure_of(*probabilities)), num_generated=len(probabilities))


def test_a_search_goes_on_while_two_more_candidates_are_worth_their_price() -> None:
    state = scored(0.3, 0.6)
    worth = NextLogOdds.after([0.3, 0.6], PRIOR).improvement(0.6, 2) / 2
    assert [policy(price=worth * factor, max_n=64).next_batch(state) for factor in (0.99, 1.01)] == [2, 0]
    assert policy(price=worth * 1.01).stopped_by(state) == "price"


def test_a_price_asks_for_fewer_candidates_the_surer_the_best_one_is() -> None:
    worth = [NextLogOdds.after([0.3, best], PRIOR).improvement(best, 2) / 2 for best in (0.6, 0.9, 0.99)]
    assert worth == sorted(worth, reverse=True)
    patient = policy(price=worth[1])
    assert [patient.next_batch(scored(0.3, best)) for best in (0.6, 0.9, 0.99)] == [2, 0, 0]


def test_the_first_candidates_are_generated_at_any_price() -> None:
    assert policy(price=1).next_batch(scored()) == 2
    assert policy(price=1).next_batch(scored(max_batch_size=1)) == 1
    assert policy(price=1).next_batch(scored(0.01, 0.02)) == 0


def test_broken_candidates_say_nothing_of_the_next_one() -> None:
    rule = policy(price=0.01)
    assert rule.next_batch(scored(0.9, None)) == rule.next_batch(scored(0.9))
    assert rule.next_batch(scored(None, None)) == 2


@pytest.mark.parametrize("seconds", [{1: 1.0, 2: 1.0, 4: 1.0, 8: 1.0}, {1: 1.0, 2: 2.0, 4: 4.0, 8: 8.0}])
def test_measured_costs_choose_the_batch_that_improves_most_for_its_cost(seconds: dict[int, float]) -> None:
    rule, state = ExpectedImprovement(0.001, PRIOR, seconds), scored(0.3, 0.6)
    assert rule.next_batch(state) == (8 if seconds[8] == 1 else 1)
    assert rule.next_batch(replace(state, max_batch_size=3)) == (2 if seconds[8] == 1 else 1)


def test_a_price_is_that_of_a_single_candidate_however_long_it_takes() -> None:
    state, worth = scored(0.3, 0.6), NextLogOdds.after([0.3, 0.6], PRIOR).improvement(0.6, 1)
    rules = [ExpectedImprovement(worth * factor, PRIOR, {1: 4.0}) for factor in (0.99, 1.01)]
    assert [rule.next_batch(state) for rule in rules] == [1, 0]


@pytest.mark.parametrize("price", [0.0, 0.001])
@pytest.mark.parametrize("budget_ms", [75, 150, 300])
def test_a_price_exceeds_neither_deadline_nor_cap(price: float, budget_ms: float) -> None:
    both, state = policy(price=price, budget_ms=budget_ms, max_n=11), SearchState(8, ENCODE)
    while size := both.next_batch(state):
        state = after(state, size, COSTS.batch[size] * 1.1)
        state = replace(state, verdicts=tuple(sure_of(*[0.2] * state.num_generated)))
    assert 1 <= state.num_generated <= 11
    assert state.elapsed + COSTS.finish * 1.1 <= budget_ms / 1000 * 1.02
    assert both.stopped_by(state) == ("max_n" if budget_ms == 300 else "budget_ms")
