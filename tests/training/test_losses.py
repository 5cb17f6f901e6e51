"""Each loss against its formula written otherwise, and what imbalance of the labels does to it."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from numpy.typing import ArrayLike, NDArray
from pydantic import ValidationError
from torch import Tensor

from forejudge.errors import ForejudgeError
from forejudge.training.losses import (
    ClassWeights,
    VerifierLoss,
    answer_log_probability,
    class_weighted_cross_entropy,
    cross_entropy,
    focal_loss,
    listwise_loss,
    pairwise_loss,
    squared_error,
)

YES, NO = 2, 0
MOSTLY_RIGHT = [True] * 63 + [False] * 37


@pytest.fixture
def labeled() -> tuple[Tensor, Tensor]:
    """Logits of 50 items over five words, and which items are right."""
    generator = torch.Generator().manual_seed(0)
    logits = 3 * torch.randn(50, 5, generator=generator, dtype=torch.float64)
    return logits, torch.rand(50, generator=generator) < 0.63


def log_p_of_answers(logits: Tensor, correct: Tensor) -> Tensor:
    return answer_log_probability(logits.log_softmax(-1), (YES, NO), correct)


def written_out(logits: Tensor, correct: Tensor, positive: float, negative: float, gamma: float) -> NDArray[np.float64]:
    """The focal loss in numpy, from probabilities."""
    raised, right = np.exp(logits.numpy()), correct.numpy()
    probability = raised[np.arange(len(right)), np.where(right, YES, NO)] / raised.sum(axis=1)
    return -np.where(right, positive, negative) * (1 - probability) ** gamma * np.log(probability)


def best_constant(loss: VerifierLoss, correct: list[bool]) -> float:
    """The p(yes) of least mean loss among those that say the same of every item, to 0.001."""
    labels = torch.tensor(correct)
    per_item = loss.for_labels(correct)
    grid = torch.arange(0.001, 1, 0.001, dtype=torch.float64)
    means = [float(per_item(torch.where(labels, p, 1 - p).log(), labels).mean()) for p in grid]
    return float(grid[int(np.argmin(means))])


def test_cross_entropy_is_that_of_the_right_answer_among_all_words(labeled: tuple[Tensor, Tensor]) -> None:
    logits, correct = labeled
    expected = F.cross_entropy(logits, torch.where(correct, YES, NO), reduction="none")
    torch.testing.assert_close(cross_entropy(log_p_of_answers(logits, correct)), expected)


def test_the_plain_mean_over_the_training_set_is_the_weighted_mean(labeled: tuple[Tensor, Tensor]) -> None:
    logits, correct = labeled
    share = float(correct.double().mean())
    for alpha, weights in [
        (1 - share, ClassWeights.balanced(correct)),
        (0.37, ClassWeights.from_alpha(0.37, share)),
        (0.9, ClassWeights.from_alpha(0.9, share)),
    ]:
        actual = class_weighted_cross_entropy(log_p_of_answers(logits, correct), correct, weights)
        word_weights = torch.ones(5, dtype=torch.float64)
        word_weights[YES], word_weights[NO] = alpha, 1 - alpha
        expected = F.cross_entropy(logits, torch.where(correct, YES, NO), weight=word_weights)
        torch.testing.assert_close(actual.mean(), expected)


def test_accumulated_batches_of_unequal_size_give_the_gradient_of_the_whole(labeled: tuple[Tensor, Tensor]) -> None:
    logits, correct = labeled
    loss = VerifierLoss(kind="focal").for_labels(correct)

    def gradient(sizes: list[int]) -> Tensor:
        leaf = logits.clone().requires_grad_()
        for rows, labels in zip(leaf.split(sizes), correct.split(sizes), strict=True):
            (loss(log_p_of_answers(rows, labels), labels).sum() / len(correct)).backward()
        assert leaf.grad is not None
        return leaf.grad

    torch.testing.assert_close(gradient([7, 40, 3]), gradient([50]))


@pytest.mark.parametrize("gamma", [0.0, 0.5, 1.0, 2.0, 5.0])
def test_focal_loss_equals_its_formula(labeled: tuple[Tensor, Tensor], gamma: float) -> None:
    logits, correct = labeled
    actual = focal_loss(log_p_of_answers(logits, correct), correct, ClassWeights(0.8, 1.3), gamma)
    assert actual.numpy() == pytest.approx(written_out(logits, correct, 0.8, 1.3, gamma), rel=1e-9)


def test_without_gamma_focal_loss_is_class_weighted_cross_entropy(labeled: tuple[Tensor, Tensor]) -> None:
    log_p, (_, correct), weights = log_p_of_answers(*labeled), labeled, ClassWeights(0.8, 1.3)
    expected = class_weighted_cross_entropy(log_p, correct, weights)
    assert torch.equal(focal_loss(log_p, correct, weights, gamma=0.0), expected)


def test_focal_loss_is_exact_where_an_answer_is_almost_certain() -> None:
    doubt = torch.tensor([1e-10])  # 1 - exp(-1e-10) is 0 in float32
    loss = focal_loss(-doubt, torch.tensor([True]), ClassWeights(1.0, 1.0), gamma=0.5)
    assert float(loss) == pytest.approx(1e-15, rel=1e-4, abs=0)


@pytest.mark.parametrize("gamma", [0.0, 0.01, 0.5, 1.0, 2.0, 5.0])
def test_gradients_are_finite_for_answers_certain_or_excluded(gamma: float) -> None:
    gaps = [-1e4, -100.0, -20.0, 0.0, 1e-6, 15.0, 17.0, 100.0, 1e4]
    logits = torch.tensor([[-gap / 2, gap / 2] for gap in gaps] * 2, requires_grad=True)
    correct = torch.tensor([True] * len(gaps) + [False] * len(gaps))
    log_p = answer_log_probability(logits.log_softmax(-1), (1, 0), correct)
    loss = focal_loss(log_p, correct, ClassWeights(0.8, 1.3), gamma)
    loss.sum().backward()
    assert logits.grad is not None
    assert torch.isfinite(loss).all()
    assert torch.isfinite(logits.grad).all()
    assert logits.grad[0].tolist() == pytest.approx([0.8, -0.8])  # what is wrong for certain is still pulled
    assert logits.grad[len(gaps) - 1].tolist() == pytest.approx([0, 0], abs=1e-6)


def test_plain_cross_entropy_drifts_to_the_share_of_right_ones_and_balanced_to_neither_answer() -> None:
    assert best_constant(VerifierLoss(kind="cross-entropy"), MOSTLY_RIGHT) == pytest.approx(0.63)
    assert best_constant(VerifierLoss(kind="class-weighted"), MOSTLY_RIGHT) == pytest.approx(0.5)
    assert best_constant(VerifierLoss(kind="class-weighted", alpha=0.37), MOSTLY_RIGHT) == pytest.approx(0.5)
    assert best_constant(VerifierLoss(kind="focal"), MOSTLY_RIGHT) == pytest.approx(0.5)
    assert 0.5 < best_constant(VerifierLoss(kind="focal", alpha=0.5), MOSTLY_RIGHT) < 0.6
    # An alpha fixed beforehand balances the labels that it was made for and no others.
    assert best_constant(VerifierLoss(kind="class-weighted", alpha=0.37), [True, False]) == pytest.approx(0.37)


def test_the_best_constant_of_regression_is_the_share_of_right_ones() -> None:
    correct = torch.tensor(MOSTLY_RIGHT)
    values = torch.full((100,), 0.63, requires_grad=True)
    loss = VerifierLoss(kind="regression").for_labels(MOSTLY_RIGHT)(values, correct)
    loss.sum().backward()
    assert loss.tolist() == pytest.approx([0.37**2] * 63 + [0.63**2] * 37)
    assert values.grad is not None
    assert float(values.grad.sum()) == pytest.approx(0, abs=1e-4)


def test_regression_keeps_the_dtype_of_the_head_and_punishes_values_beyond_the_targets() -> None:
    loss = squared_error(torch.tensor([2.0, -1.0], dtype=torch.float64), torch.tensor([True, False]))
    assert loss.dtype == torch.float64
    assert loss.tolist() == [1.0, 1.0]


@pytest.mark.parametrize("as_type", [list, np.array, torch.tensor])
def test_balanced_weights_count_both_classes_alike_and_average_one(as_type: Callable[[list[bool]], ArrayLike]) -> None:
    weights = ClassWeights.balanced(as_type(MOSTLY_RIGHT))
    assert weights.positive == pytest.approx(0.5 / 0.63)
    assert weights.negative == pytest.approx(0.5 / 0.37)


@pytest.mark.parametrize("share", [0.0, 0.2, 0.63, 1.0])
@pytest.mark.parametrize("alpha", [0.1, 0.37, 0.5])
def test_weights_of_alpha_keep_its_ratio_and_average_one(alpha: float, share: float) -> None:
    weights = ClassWeights.from_alpha(alpha, share)
    assert weights.positive / weights.negative == pytest.approx(alpha / (1 - alpha))
    assert weights.positive * share + weights.negative * (1 - share) == pytest.approx(1)


@pytest.mark.parametrize(
    ("correct", "complaint"),
    [([True, True], "all training labels are right"), ([False], "all training labels are wrong"), ([], "no training")],
)
def test_labels_of_one_class_cannot_be_balanced(correct: list[bool], complaint: str) -> None:
    for kind in ("class-weighted", "focal"):
        with pytest.raises(ForejudgeError, match=complaint):
            VerifierLoss(kind=kind).for_labels(correct)


@pytest.mark.parametrize(("alpha", "share"), [(0.0, 0.5), (1.0, 0.5), (float("nan"), 0.5), (0.5, 63.0), (0.5, -0.1)])
def test_weights_that_would_ignore_a_class_are_refused(alpha: float, share: float) -> None:
    with pytest.raises(ForejudgeError, match=r"expected alpha in \(0, 1\), positive rate in \[0, 1\]"):
        ClassWeights.from_alpha(alpha, share)


@pytest.mark.parametrize(
    "settings",
    [
        {"kind": "hinge"},
        {"kind": "focal", "gamma": -0.1},
        {"kind": "focal", "gamma": float("inf")},
        {"kind": "class-weighted", "alpha": 0},
        {"kind": "class-weighted", "alpha": 1},
        {"kind": "class-weighted", "alpha": float("nan")},
        {"kind": "class-weighted", "positive_weight": 0.37},
        {},
    ],
)
def test_settings_that_mean_nothing_are_refused(settings: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        VerifierLoss.model_validate(settings)


SCORES = torch.tensor([[2.0, 0.0, 1.0], [5.0, 1.0, 9.0], [1.0, 2.0, 3.0]], dtype=torch.float64)
CORRECT = torch.tensor([[True, False, False], [False, True, True], [True, True, True]])
IS_CANDIDATE = torch.tensor([[True, True, True], [True, True, False], [True, True, True]])


def test_pairs_of_a_right_and_a_wrong_candidate_of_one_group_are_compared() -> None:
    """The last candidate of the second group is padding; the third group has no such pair."""
    found = pairwise_loss(SCORES, CORRECT, IS_CANDIDATE).tolist()
    expected = [(np.log1p(np.exp(-2)) + np.log1p(np.exp(-1))) / 2, np.log1p(np.exp(4)), 0]
    assert found == pytest.approx(expected)


def test_right_candidates_share_the_softmax_of_their_group() -> None:
    found = listwise_loss(SCORES, CORRECT, IS_CANDIDATE).tolist()
    expected = [-np.log(np.exp(2) / np.exp([2, 0, 1]).sum()), -np.log(np.exp(1) / np.exp([5, 1]).sum()), 0]
    assert found == pytest.approx(expected)


def test_a_group_weighs_as_much_as_its_candidates() -> None:
    loss = VerifierLoss(kind="class-weighted", pairwise=0.5, listwise=2)
    groups = SCORES, CORRECT, IS_CANDIDATE
    expected = (0.5 * pairwise_loss(*groups) + 2 * listwise_loss(*groups)) * torch.tensor([3, 2, 3])
    torch.testing.assert_close(loss.ranking(*groups), expected)
    assert loss.ranks
    assert not VerifierLoss(kind="focal").ranks


@pytest.mark.parametrize("loss", [pairwise_loss, listwise_loss])
def test_ranking_losses_have_finite_gradients(loss: Callable[..., Tensor]) -> None:
    scores = (1000 * SCORES).requires_grad_()
    loss(scores, CORRECT, IS_CANDIDATE).sum().backward()
    assert scores.grad is not None
    assert scores.grad.isfinite().all()
    assert (scores.grad[~IS_CANDIDATE] == 0).all()
