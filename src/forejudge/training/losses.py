"""Losses as pure functions of the next token's log-probabilities (paper, "Training")."""

import torch
from torch import Tensor


def class_weighted_cross_entropy(
    log_p_NV: Tensor, answers: tuple[int, int], correct_N: Tensor, positive_weight: float
) -> Tensor:
    """Mean cross-entropy of the right answer over the whole vocabulary, weighted by class.

    `answers` are the token numbers of yes and no. Right candidates count `positive_weight` and wrong ones
    1 - `positive_weight`: with the share of wrong candidates as the weight both classes count alike, so that the
    verifier does not drift to "yes" where most candidates are right.
    """
    yes, no = answers
    answer_N = torch.where(correct_N, yes, no)
    weight_N = torch.where(correct_N, positive_weight, 1 - positive_weight)
    log_p_N = log_p_NV.gather(1, answer_N[:, None]).squeeze(1)
    return -(weight_N * log_p_N).sum() / weight_N.sum()
