"""Mean and variance of each channel in one streamed pass (Welford's update, in batches: Chan et al. 1983)."""

from collections.abc import Iterable

import torch
from torch import Tensor


def channel_statistics(batches: Iterable[Tensor]) -> tuple[Tensor, Tensor]:
    """Mean and population variance over all but the last axis: two tensors (D,) in float32."""
    count, mean, squares = 0, torch.zeros(()), torch.zeros(())
    for batch in batches:
        rows_MD = batch.flatten(0, -2).double()
        batch_mean = rows_MD.mean(0)
        shift = batch_mean - mean
        total = count + len(rows_MD)
        squares = squares + (rows_MD - batch_mean).square().sum(0) + shift.square() * count * len(rows_MD) / total
        mean = mean + shift * len(rows_MD) / total
        count = total
    if count == 0:
        raise ValueError("statistics need at least one batch of hidden states")
    return mean.float(), (squares / count).float()
