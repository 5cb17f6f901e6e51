"""From verdicts to a winner."""

import pytest

from forejudge.selection import first_reaching, order_by_score, passed
from forejudge.types import Verdict


def sure_of(*probabilities: float | None) -> list[Verdict]:
    return [Verdict(score=0.0, probability=probability) for probability in probabilities]


def test_the_highest_score_stands_first() -> None:
    assert order_by_score([Verdict(-3.0), Verdict(2.5), Verdict(0.0)]) == (1, 2, 0)


def test_of_equal_scores_the_first_drawn_stands_first() -> None:
    assert order_by_score([Verdict(1.0), Verdict(2.0), Verdict(1.0), Verdict(2.0)]) == (1, 3, 0, 2)


def test_nothing_drawn_has_no_order() -> None:
    assert order_by_score([]) == ()


@pytest.mark.parametrize(("wanted", "index"), [(0.3, 0), (0.4, 2), (0.7, 2), (0.9, 3), (0.95, None)])
def test_the_first_that_is_sure_enough_is_found(wanted: float, index: int | None) -> None:
    assert first_reaching(sure_of(0.3, 0.2, 0.7, 0.9), wanted) == index


def test_without_a_probability_nothing_is_sure() -> None:
    assert first_reaching(sure_of(None, None), 0.1) is None


@pytest.mark.parametrize(("probability", "verdict"), [(0.5, True), (0.49, False), (1.0, True), (None, None)])
def test_a_candidate_passes_from_one_half_on(probability: float | None, verdict: bool | None) -> None:
    (judged,) = sure_of(probability)
    assert passed(judged) is verdict
