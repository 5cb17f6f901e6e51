"""Losses for training a verifier, as pure functions (arXiv 2603.22492, "Training").

Shapes: N items, V words, G groups of up to K candidates of one question. Every loss is per item, (N,), not averaged:
the trainer divides the sum over an accumulated batch by its number of items. Class weights average 1 over the training
labels, so that the unweighted mean over the training set is the weighted mean. The ranking losses compare candidates of
one group; each group weighs as many items as it has candidates.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
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


def pairwise_loss(score_GK: Tensor, correct_GK: Tensor, is_candidate_GK: Tensor) -> Tensor:
    """Return softplus(wrong score - right score), averaged over a group's pairs of a right and a wrong candidate: (G,).

    0 for a group without such a pair (RankNet, Burges et al. 2005).
    """
    is_pair_GKK = (correct_GK & is_candidate_GK)[:, :, None] & (~correct_GK & is_candidate_GK)[:, None, :]
    loss_GKK = F.softplus(score_GK[:, None, :] - score_GK[:, :, None]) * is_pair_GKK
    return loss_GKK.sum((1, 2)) / is_pair_GKK.sum((1, 2)).clamp(min=1)


def listwise_loss(score_GK: Tensor, correct_GK: Tensor, is_candidate_GK: Tensor) -> Tensor:
    """Return -log of the share of right candidates in the softmax over a group's scores: (G,).

    0 for a group in which all or none are right (ListNet's top-one probability, Cao et al. 2007).
    """
    is_right_GK = correct_GK & is_candidate_GK
    is_mixed_G = is_right_GK.any(1) & (is_candidate_GK & ~correct_GK).any(1)
    lowest = torch.finfo(score_GK.dtype).min
    all_G = score_GK.masked_fill(~is_candidate_GK, lowest).logsumexp(1)
    right_G = score_GK.masked_fill(~is_right_GK, lowest).logsumexp(1)
    return torch.where(is_mixed_G, all_G - right_G, 0.0)


class VerifierLoss(BaseModel):
    """Loss of stage 2.

    `alpha` (class-weighted and focal) weights right candidates, 1 - alpha wrong ones; by default both classes of the
    training labels get the same total weight. `gamma` is the exponent of the focal loss. `pairwise` and `listwise`
    weight the ranking losses that are added; with either, batches are made of all candidates of a prompt's image.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    kind: Literal["cross-entropy", "class-weighted", "focal", "regression"]
    alpha: float | None = Field(default=None, gt=0, lt=1)
    gamma: float = Field(default=2.0, ge=0, le=100)
    pairwise: float = Field(default=0.0, ge=0, le=1000)
    listwise: float = Field(default=0.0, ge=0, le=1000)

    @property
    def ranks(self) -> bool:
        """True if candidates of one group are compared."""
        return self.pairwise > 0 or self.listwise > 0

    def ranking(self, score_GK: Tensor, correct_GK: Tensor, is_candidate_GK: Tensor) -> Tensor:
        """Return the weighted sum of both ranking losses, each group times its number of candidates: (G,)."""
        groups = score_GK, correct_GK, is_candidate_GK
        loss_G = self.pairwise * pairwise_loss(*groups) + self.listwise * listwise_loss(*groups)
        return loss_G * is_candidate_GK.sum(1)

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
