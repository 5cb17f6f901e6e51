"""The class-weighted loss against its formula, and what it is for."""

import math

import pytest
import torch

from forejudge.training.losses import class_weighted_cross_entropy

YES, NO = 2, 0


def test_it_equals_the_weighted_mean_of_logarithms() -> None:
    probabilities = [[0.2, 0.3, 0.5], [0.6, 0.1, 0.3], [0.05, 0.05, 0.9]]
    correct = [True, False, True]
    weights = [0.37 if right else 0.63 for right in correct]
    terms = [-math.log(row[YES if right else NO]) for row, right in zip(probabilities, correct, strict=True)]
    expected = sum(w * term for w, term in zip(weights, terms, strict=True)) / sum(weights)
    log_p = torch.tensor(probabilities).log()
    actual = class_weighted_cross_entropy(log_p, (YES, NO), torch.tensor(correct), 0.37)
    assert float(actual) == pytest.approx(expected, rel=1e-6)


def test_with_the_share_of_wrong_ones_as_weight_neither_answer_is_favoured() -> None:
    correct = torch.tensor([True] * 63 + [False] * 37)
    logits = torch.zeros(100, 3, requires_grad=True)
    class_weighted_cross_entropy(logits.log_softmax(-1), (YES, NO), correct, 0.37).backward()
    assert logits.grad is not None
    pull = logits.grad.sum(0)
    assert float(pull[YES]) == pytest.approx(float(pull[NO]), abs=1e-7)
    assert float(pull[1]) > 0  # other words are pushed down
