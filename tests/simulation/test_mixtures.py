"""Mixtures of two settings: their mean cost and the numbers of candidates."""

import numpy as np
import pytest

from forejudge.simulation.mixtures import candidate_counts, mixture


@pytest.mark.parametrize(
    ("cost", "mixed"),
    [
        (1, [(0, 1.0)]),
        (2, [(0, 1.0)]),
        (2.5, [(0, 0.75), (1, 0.25)]),
        (4, [(2, 1.0)]),
        (4 - 1e-12, [(2, 1.0)]),
        (5, [(2, 0.5), (3, 0.5)]),
        (6, [(3, 1.0)]),
        (7, [(3, 1.0)]),
    ],
)
def test_neighbors_are_mixed_to_the_cost(cost: float, mixed: list[tuple[int, float]]) -> None:
    """The last of settings with one cost is taken."""
    assert mixture(np.array([2.0, 4.0, 4.0, 6.0]), cost) == mixed


def test_candidates_are_counted_by_the_share_of_their_setting() -> None:
    counts = candidate_counts([(np.array([[1, 1], [1, 3]]), 0.75), (np.array([[8, 8], [8, 32]]), 0.25)])
    assert counts.mean == pytest.approx(0.75 * 1.5 + 0.25 * 14)
    assert (counts.p50, counts.p90, counts.p99) == (1, 8, 32)
