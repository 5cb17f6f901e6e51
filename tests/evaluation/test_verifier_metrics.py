"""Every figure against a plain loop over groups, candidates and pairs."""

import json
from dataclasses import dataclass

import numpy as np
import pytest

from forejudge.errors import InvalidRequest
from forejudge.evaluation.metrics import BoolArray, FloatArray, VerifierMetrics, balanced_accuracy, verifier_metrics

Group = tuple[str, int]  # a prompt and its image


@dataclass(frozen=True)
class Labeled:
    groups: list[Group]
    correct: BoolArray
    score: FloatArray
    probability: FloatArray

    def metrics(self) -> VerifierMetrics:
        return verifier_metrics(self.groups, self.correct, self.score, self.probability)

    def by_group(self) -> list[list[tuple[float, bool]]]:
        """Scores and labels of each group in the order in which they were given."""
        rows = list(zip(self.groups, self.score.tolist(), self.correct.tolist(), strict=True))
        return [[(score, right) for of, score, right in rows if of == group] for group in sorted(set(self.groups))]


@pytest.fixture
def labeled() -> Labeled:
    """40 groups of 1 to 9 candidates, mixed with each other; scores on a coarse grid, so that many tie."""
    generator = np.random.default_rng(0)
    sizes = generator.integers(1, 10, size=40)
    groups = [(f"prompt {number // 4}", number % 4) for number in np.repeat(np.arange(40), sizes).tolist()]
    generator.shuffle(groups)
    correct = generator.random(len(groups)) < 0.4
    score = np.round(generator.normal(size=len(groups)) + correct, 0)
    return Labeled(groups, correct, score, 1 / (1 + np.exp(-score)))


def pair_points(pairs: list[tuple[float, float]]) -> list[float]:
    return [1.0 if right > wrong else 0.5 if right == wrong else 0.0 for right, wrong in pairs]


def test_pair_accuracy_equals_a_loop_over_the_pairs_of_each_group(labeled: Labeled) -> None:
    pairs = [(a, b) for group in labeled.by_group() for a, right in group for b, other in group if right and not other]
    assert labeled.metrics().pair_accuracy == pytest.approx(np.mean(pair_points(pairs)))


def test_gain_equals_a_loop_over_groups(labeled: Labeled) -> None:
    best = blind = perfect = 0.0
    for group in labeled.by_group():
        scores, labels = [score for score, _ in group], [right for _, right in group]
        best += labels[scores.index(max(scores))]
        blind += sum(labels) / len(labels)
        perfect += any(labels)
    assert labeled.metrics().oracle_gap_closed_vs_random == pytest.approx((best - blind) / (perfect - blind))


def test_figures_over_all_candidates_equal_loops(labeled: Labeled) -> None:
    scores, labels = labeled.score.tolist(), labeled.correct.tolist()
    right = [score for score, label in zip(scores, labels, strict=True) if label]
    wrong = [score for score, label in zip(scores, labels, strict=True) if not label]
    metrics = labeled.metrics()
    assert metrics.auroc == pytest.approx(np.mean(pair_points([(a, b) for a in right for b in wrong])))
    told_right, told_wrong = sum(score >= 0 for score in right), sum(score < 0 for score in wrong)
    assert metrics.balanced_accuracy == pytest.approx((told_right / len(right) + told_wrong / len(wrong)) / 2)
    assert metrics.count == len(scores)
    assert metrics.positive_rate == pytest.approx(len(right) / len(scores))


def test_calibration_is_of_the_probability_and_not_of_the_score(labeled: Labeled) -> None:
    share = labeled.correct.mean()
    assert verifier_metrics(
        labeled.groups, labeled.correct, labeled.score, np.full(len(labeled.groups), share - 0.1)
    ).expected_calibration_error == pytest.approx(0.1)


def test_what_a_perfect_a_blind_and_a_perverse_verifier_get() -> None:
    groups = ["a", "a", "b", "b", "b", "c"]
    correct = np.array([True, False, False, False, True, False])
    perfect, perverse = correct.astype(np.float64), 1.0 - correct
    best = verifier_metrics(groups, correct, perfect, perfect)
    assert (best.auroc, best.pair_accuracy, best.balanced_accuracy, best.oracle_gap_closed_vs_random) == (1, 1, 1, 1)
    worst = verifier_metrics(groups, correct, perverse, perverse)
    assert (worst.auroc, worst.pair_accuracy, worst.balanced_accuracy) == (0, 0, 0)
    assert worst.oracle_gap_closed_vs_random == pytest.approx(-(1 / 2 + 1 / 3) / (1 / 2 + 2 / 3))
    blind = verifier_metrics(groups, correct, np.zeros(6), np.full(6, 0.5))
    assert (blind.auroc, blind.pair_accuracy, blind.balanced_accuracy) == (0.5, 0.5, 0.5)


def test_of_equal_scores_the_first_of_its_group_is_chosen() -> None:
    groups, same = ["a", "b", "a", "b"], np.zeros(4)
    first = verifier_metrics(groups, np.array([True, True, False, False]), same, same)
    assert first.oracle_gap_closed_vs_random == 1.0
    last = verifier_metrics(groups, np.array([False, False, True, True]), same, same)
    assert last.oracle_gap_closed_vs_random == -1.0


def test_a_prompt_that_is_easy_is_not_taken_for_a_good_choice() -> None:
    groups = np.array([0, 0, 1, 1])  # the score knows the prompt and nothing of its candidates
    correct, score = np.array([True, True, False, False]), np.array([1.0, 1.0, 0.0, 0.0])
    metrics = verifier_metrics(groups, correct, score, score)
    assert metrics.auroc == 1.0
    assert np.isnan(metrics.pair_accuracy)
    assert np.isnan(metrics.oracle_gap_closed_vs_random)


def test_figures_of_one_class_are_null_in_json() -> None:
    metrics = verifier_metrics(["a", "a", "b"], np.ones(3, dtype=np.bool_), np.arange(3.0), np.full(3, 0.75))
    undefined = dict.fromkeys(("auroc", "balanced_accuracy", "pair_accuracy", "oracle_gap_closed_vs_random"))
    defined = {"expected_calibration_error": 0.25, "count": 3, "positive_rate": 1.0}
    assert json.loads(json.dumps(metrics.to_json(), allow_nan=False)) == undefined | defined


def test_even_odds_are_taken_for_right_as_a_search_takes_them() -> None:
    correct = np.array([[True, False], [False, False]])
    assert balanced_accuracy(correct, np.array([[0.5, 0.4999], [0.5, 0.1]])) == pytest.approx((1 + 2 / 3) / 2)


@pytest.mark.parametrize("lengths", [(2, 3, 3, 3), (3, 2, 3, 3), (3, 3, 2, 3), (3, 3, 3, 2), (0, 0, 0, 0)])
def test_arrays_that_do_not_belong_together_are_refused(lengths: tuple[int, int, int, int]) -> None:
    ids, labels, scores, probabilities = lengths
    with pytest.raises(InvalidRequest, match="expected one value for each"):
        verifier_metrics(["a"] * ids, np.zeros(labels, dtype=np.bool_), np.zeros(scores), np.zeros(probabilities))
