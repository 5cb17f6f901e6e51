"""The class-weighted loss against its formula, and what it is for."""

import math

import pytest
import torch

from forejudge.training.losses import class_weighted_cross_entropy


def test_it_equals_the_weighted_mean_of_logarithms() -> None:
    log_odds, correct = [0.3, -1.2, 2.0], [True, False, True]
    weights = [0.37 if right else 0.63 for right in correct]
    terms = [
        math.log1p(math.exp(-odds)) if right else math.log1p(math.exp(odds))
        for odds, right in zip(log_odds, correct, strict=True)
    ]
    expected = sum(w * term for w, term in zip(weights, terms, strict=True)) / sum(weights)
    actual = class_weighted_cross_entropy(torch.tensor(log_odds), torch.tensor(correct), 0.37)
    assert float(actual) == pytest.approx(expected, rel=1e-6)


def test_with_the_share_of_wrong_ones_as_weight_no_constant_answer_is_favoured() -> None:
    correct = torch.tensor([True] * 63 + [False] * 37)
    constant = torch.zeros(100, requires_grad=True)
    class_weighted_cross_entropy(constant, correct, 0.37).backward()
    assert constant.grad is not None
    assert float(constant.grad.sum()) == pytest.approx(0, abs=1e-7)
