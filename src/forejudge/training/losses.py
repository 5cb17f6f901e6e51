"""Losses for training a verifier, as pure functions (arXiv 2603.22492, "Training").

Shapes: N items, V words. Every loss is per item, (N,), not averaged: the trainer divides the sum over an accumulated
batch by its number of items. Class weights average 1 over the training labels, so that the unweighted mean over the
training set is the weighted mean.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Literal

import numpy as np
import torch
from numpy.typing import ArrayLike
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

from forejudge.errors import InvalidRequest

PerItemLoss = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class ClassWeights:
    """Loss weights of right (`positive`) and wrong (`negative`) candidates."""

    positive: float
    negative: float

    @classmethod
    def balanced(cls, correct: ArrayLike) -> "ClassWeights":
        """Give both classes the same total weight. Raises InvalidRequest if the labels (M,) lack one of them."""
        positive_rate = _positive_rate(correct)
        if positive_rate in (0, 1):
            only_class = "right" if positive_rate == 1 else "wrong"
            raise InvalidRequest(f"all training labels are {only_class}, expected both classes: label more candidates")
        return cls.from_alpha(1 - positive_rate, positive_rate)

    @classmethod
    def from_alpha(cls, alpha: float, positive_rate: float) -> "ClassWeights":
        """Return weights in the ratio alpha : 1 - alpha for a fraction of right training labels in [0, 1].

        The official release of the paper has an alpha of 0.37. Raises InvalidRequest for an alpha outside (0, 1).
        """
        if not (0 < alpha < 1 and 0 <= positive_rate <= 1):
            raise InvalidRequest(
                f"alpha {alpha:g}, positive rate {positive_rate:g}: expected alpha in (0, 1), positive rate in [0, 1]"
            )
        mean = alpha * positive_rate + (1 - alpha) * (1 - positive_rate)
        return cls(alpha / mean, (1 - alpha) / mean)

    def apply(self, loss_N: Tensor, correct_N: Tensor) -> Tensor:
        """Multiply each item's loss by the weight of its class: (N,)."""
        return torch.where(correct_N, self.positive * loss_N, self.negative * loss_N)


def answer_log_probability(log_p_NV: Tensor, answer_ids: tuple[int, int], correct_N: Tensor) -> Tensor:
    """Return the log-probability (N,) of the right answer, over the whole vocabulary.

    `answer_ids` are the token ids of yes, which is right where `correct_N` (boolean) is True, and of no.
    """
    yes, no = answer_ids
    return log_p_NV.gather(1, torch.where(correct_N, yes, no)[:, None]).squeeze(1)


def cross_entropy(log_p_N: Tensor) -> Tensor:
    """Return -log p of the right answer: (N,)."""
    return -log_p_N


def class_weighted_cross_entropy(log_p_N: Tensor, correct_N: Tensor, class_weights: ClassWeights) -> Tensor:
    """Return -w log p of the right answer: (N,).

    Balanced weights keep a verifier from drifting to "yes" where most candidates are right.
    """
    return class_weights.apply(cross_entropy(log_p_N), correct_N)


def focal_loss(log_p_N: Tensor, correct_N: Tensor, class_weights: ClassWeights, gamma: float) -> Tensor:
    """Return -w (1 - p)^gamma log p of the right answer: (N,), for gamma >= 0 (Lin et al. 2017)."""
    # At p = 1 a gamma below 1 would have an infinite slope, and 0 * inf would make the gradient nan.
    below_one_N = log_p_N.clamp(max=-torch.finfo(log_p_N.dtype).tiny)
    focal_factor_N = (-torch.expm1(below_one_N)) ** gamma
    return class_weights.apply(focal_factor_N * cross_entropy(log_p_N), correct_N)


def squared_error(value_N: Tensor, correct_N: Tensor) -> Tensor:
    """Return (value - target)^2: (N,), for a head's value of any range against 1 for right and 0 for wrong."""
    return (value_N - correct_N.to(value_N)).square()


class VerifierLoss(BaseModel):
    """Loss of stage 2.

    `alpha` (class-weighted and focal) weights right candidates, 1 - alpha wrong ones; by default both classes of the
    training labels get the same total weight. `gamma` is the exponent of the focal loss.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    kind: Literal["cross-entropy", "class-weighted", "focal", "regression"]
    alpha: float | None = Field(default=None, gt=0, lt=1)
    gamma: float = Field(default=2.0, ge=0, le=100)

    def for_labels(self, correct: ArrayLike) -> PerItemLoss:
        """Return the loss for training labels (M,), a function of two tensors (N,): a prediction and `correct_N`.

        The prediction is a head's value for regression, `answer_log_probability` for every other kind. Raises
        InvalidRequest for balanced weights if a class is absent.
        """
        match self.kind:
            case "cross-entropy":
                return lambda log_p_N, _: cross_entropy(log_p_N)
            case "class-weighted":
                return partial(class_weighted_cross_entropy, class_weights=self._class_weights(correct))
            case "focal":
                return partial(focal_loss, class_weights=self._class_weights(correct), gamma=self.gamma)
            case "regression":
                return squared_error

    def _class_weights(self, correct: ArrayLike) -> ClassWeights:
        if self.alpha is None:
            return ClassWeights.balanced(correct)
        return ClassWeights.from_alpha(self.alpha, _positive_rate(correct))


def _positive_rate(correct: ArrayLike) -> float:
    labels_M = np.asarray(correct, dtype=np.bool_)
    if labels_M.size == 0:
        raise InvalidRequest("no training labels, expected both right and wrong candidates")
    return float(labels_M.mean())
