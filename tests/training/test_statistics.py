"""Streamed statistics against those of all data at once."""

import pytest
import torch

from forejudge.training.statistics import channel_statistics


@pytest.mark.parametrize("sizes", [[7], [1, 1, 5], [3, 4]])
def test_batches_of_any_size_give_the_statistics_of_the_whole(sizes: list[int]) -> None:
    states = torch.randn(7, 4, 3, generator=torch.Generator().manual_seed(0)) * 5 + 100
    mean, variance = channel_statistics(states.split(sizes))
    torch.testing.assert_close(mean, states.double().mean(dim=(0, 1)).float())
    torch.testing.assert_close(variance, states.double().var(dim=(0, 1), correction=0).float())


def test_no_batch_is_an_error() -> None:
    with pytest.raises(ValueError, match="at least one batch"):
        channel_statistics([])
