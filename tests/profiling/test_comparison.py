"""Slopes and savings of figures that are made up."""

import pytest

from forejudge.profiling.comparison import one_more, savings
from forejudge.profiling.profile_figures import Memory, StrategyFigures


def figures(strategy: str, verifier: str, cost: float, memory: int = 90) -> StrategyFigures:
    """With a cost of so much for one more candidate."""
    costs = {n: cost * n for n in (1, 4)}
    return StrategyFigures(
        strategy=strategy,
        verifier=verifier,
        batch_size=1,
        flops={n: round(each) for n, each in costs.items()},
        at={},
        memory=Memory.of({1: memory, 4: memory, 8: memory}, {1: memory, 4: 2 * memory}, weights=10),
        one_more=one_more(costs, {n: round(each) for n, each in costs.items()}, {1: memory, 4: memory, 8: 9 * memory}),
    )


def test_one_more_is_the_slope_from_the_least_n_to_the_most() -> None:
    found = one_more({1: 30.0, 2: 35.0, 5: 70.0}, {1: 7, 2: 9, 5: 15}, {1: 100, 2: 101, 5: 140, 8: 999})
    assert found is not None
    assert (found.milliseconds, found.flops, found.bytes) == (10, 2, 10)
    assert one_more({8: 30.0}, {8: 7}, {1: 1, 8: 100}) is None


def test_ours_are_set_against_the_others_and_the_release_against_itself() -> None:
    found = savings(
        [
            figures("official", "hidden", 40, memory=40),
            figures("official", "clip", 100),
            figures("decode-all", "clip", 80),
            figures("forejudge", "hidden", 20, memory=15),
            figures("forejudge", "latent", 30),
        ]
    )
    times = {(saving.of, saving.against): saving.milliseconds for saving in found}
    assert times == pytest.approx(
        {
            ("official, hidden", "official, clip"): 60,  # the paper's own comparison
            ("forejudge, hidden", "official, hidden"): 50,
            ("forejudge, hidden", "official, clip"): 80,
            ("forejudge, hidden", "decode-all, clip"): 75,
            ("forejudge, latent", "official, clip"): 70,
            ("forejudge, latent", "decode-all, clip"): 62.5,
        }
    )
    (ours,) = [each for each in found if (each.of, each.against) == ("forejudge, hidden", "decode-all, clip")]
    assert ours.judging_bytes == ours.joint_bytes == pytest.approx(75), "25 of 100 bytes, weights included"


def test_memory_is_said_with_and_without_weights() -> None:
    memory = Memory.of({1: 5, 8: 40}, {1: 7}, weights=100)
    assert memory.judging_with_weights == {1: 105, 8: 140}
    assert memory.joint_with_weights == {1: 107}
