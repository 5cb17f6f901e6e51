"""Diverse winners, against brute force."""

from collections.abc import Sequence
from itertools import combinations, islice
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from forejudge.diversity import cosine_distances, diverse_order
from forejudge.search import _ranking, order_by_score
from forejudge.types import BROKEN, Verdict

RNG = np.random.default_rng(3)
PROBABILITY_N = RNG.random(7)
POOLED_ND = RNG.normal(size=(7, 5)) * [1, 10, 100, 1, 1] + 50
ORDER = order_by_score([Verdict(float(probability)) for probability in PROBABILITY_N])


def chosen(weight: float, count: int = 7) -> list[int]:
    return list(islice(diverse_order(ORDER, PROBABILITY_N.tolist(), POOLED_ND, weight), count))


def worth(chosen: Sequence[int], weight: float) -> float:
    """Return the sum of probabilities and weighted distances of pairs."""
    standard_ND = (POOLED_ND - POOLED_ND.mean(axis=0)) / POOLED_ND.std(axis=0)
    unit_ND = standard_ND / np.linalg.norm(standard_ND, axis=1)[:, None]
    distances = [1 - float(unit_ND[one] @ unit_ND[other]) for one, other in combinations(chosen, 2)]
    return float(PROBABILITY_N[list(chosen)].sum() + weight * sum(distances))


@pytest.mark.parametrize("weight", [0.05, 0.3, 2.0])
def test_each_is_the_best_addition_to_those_before_it(weight: float) -> None:
    order = chosen(weight)
    assert sorted(order) == list(range(7))
    for count in range(1, 7):
        before, left = tuple(order[:count]), sorted(order[count:])
        assert order[count] == max(left, key=lambda candidate: worth((*before, candidate), weight))


@pytest.mark.parametrize("weight", [0.05, 0.3, 2.0])
def test_a_pair_is_the_best_there_is_with_the_winner_in_it(weight: float) -> None:
    pairs: list[tuple[int, int]] = [pair for pair in combinations(range(7), 2) if ORDER[0] in pair]
    best = max(pairs, key=lambda pair: worth(pair, weight))
    assert set(chosen(weight, 2)) == set(best)


def test_a_weight_changes_who_comes_second_but_not_the_winner() -> None:
    assert {chosen(weight)[0] for weight in (0.0, 0.3, 1000.0)} == {ORDER[0]}
    further = {chosen(weight)[1] for weight in (0.0, 0.05, 0.3, 1000.0)}
    assert len(further) > 1


def test_without_a_weight_the_order_is_that_of_scores() -> None:
    assert chosen(0.0) == list(ORDER)
    saturated = list(diverse_order([2, 0, 1], [1.0, 1.0, 1.0], POOLED_ND[:3], 0.0))
    assert saturated == [2, 0, 1], "equal probabilities go by score"


def test_distances_ignore_scale_and_offset_of_channels() -> None:
    moved_ND = POOLED_ND * [2, 3, 0.1, 5, 7] + [1, 2, 3, 4, 5]
    assert cosine_distances(moved_ND) == pytest.approx(cosine_distances(POOLED_ND))
    assert cosine_distances(POOLED_ND[:1]).tolist() == [[1.0]]
    assert cosine_distances(np.ones((3, 2))).tolist() == [[1.0] * 3] * 3, "one state thrice"
    opposite = cosine_distances(np.array([[1.0, 2.0], [-1.0, -2.0]]))
    assert opposite == pytest.approx(np.array([[0.0, 2.0], [2.0, 0.0]]))


def test_a_broken_candidate_is_no_neighbor() -> None:
    """Rank candidates as a search does, of which one has states that are not finite."""
    verdicts = [Verdict(score=p, probability=p) for p in PROBABILITY_N.tolist()]
    pooled = dict(enumerate(torch.from_numpy(POOLED_ND)))
    session, state = SimpleNamespace(pooled=pooled), SimpleNamespace(verdicts=verdicts)
    expected = list(_ranking(session, state, range(7), 0.3))  # type: ignore[arg-type]
    assert expected != list(_ranking(session, state, range(7), 0.0))  # type: ignore[arg-type]
    pooled[7] = torch.full_like(pooled[0], torch.nan)
    verdicts.append(BROKEN)
    assert list(_ranking(session, state, range(8), 0.3)) == expected  # type: ignore[arg-type]
