"""Losses as pure functions of the yes-against-no log-odds (paper, "Training")."""

import torch
import torch.nn.functional as F
from torch import Tensor


def class_weighted_cross_entropy(log_odds_N: Tensor, correct_N: Tensor, positive_weight: float) -> Tensor:
    """Mean cross-entropy in which right candidates count `positive_weight` and wrong ones 1 - `positive_weight`.

    With the share of wrong candidates as the weight both classes count alike, so that the verifier does not drift
    to "yes" where most candidates are right.
    """
    weight_N = torch.where(correct_N, positive_weight, 1 - positive_weight)
    loss_N = F.binary_cross_entropy_with_logits(log_odds_N, correct_N.to(log_odds_N), reduction="none")
    return (weight_N * loss_N).sum() / weight_N.sum()
