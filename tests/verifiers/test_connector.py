"""From hidden states to embeddings."""

import math

import pytest
import torch

from forejudge.errors import InvalidRequest
from forejudge.training.statistics import channel_statistics
from forejudge.verifiers.connector import Connector

DRAW = torch.Generator().manual_seed(0)
HIDDEN_NTD = torch.randn(3, 5, 4, generator=DRAW) * torch.tensor([1.0, 10.0, 0.1, 3.0]) + torch.arange(4.0)


def test_the_connector_is_standardise_linear_exact_gelu_linear() -> None:
    torch.manual_seed(1)
    connector = Connector(4, 6)
    mean, variance = HIDDEN_NTD.mean((0, 1)), HIDDEN_NTD.var((0, 1))
    connector.set_statistics(mean, variance)
    weights = connector.state_dict()
    standard = (HIDDEN_NTD - mean) / (variance + 1e-6).sqrt()
    inner = standard @ weights["layers.0.weight"].T + weights["layers.0.bias"]
    inner = inner * 0.5 * (1 + torch.erf(inner / math.sqrt(2)))
    expected = inner @ weights["layers.2.weight"].T + weights["layers.2.bias"]
    torch.testing.assert_close(connector(HIDDEN_NTD).detach(), expected)


def test_its_scale_does_not_matter_once_statistics_are_set() -> None:
    torch.manual_seed(1)
    connector = Connector(4, 6)
    connector.set_statistics(*channel_statistics([HIDDEN_NTD]))
    before = connector(HIDDEN_NTD)
    scaled = HIDDEN_NTD * 7 - 2
    connector.set_statistics(*channel_statistics([scaled]))
    torch.testing.assert_close(connector(scaled), before, rtol=1e-4, atol=1e-4)


def test_statistics_are_part_of_the_weights() -> None:
    assert {"mean_D", "variance_D"} < set(Connector(4, 6).state_dict())


def test_a_silent_channel_divides_by_no_zero() -> None:
    connector = Connector(4, 6)
    connector.set_statistics(torch.zeros(4), torch.zeros(4))
    assert connector(torch.zeros(1, 2, 4)).isfinite().all()


def test_merging_puts_a_square_of_neighbours_into_one_token() -> None:
    torch.manual_seed(1)
    connector = Connector(4, 6, merge_size=2)
    hidden_HWD = torch.randn(4, 6, 4)[:, :4]
    first = connector(hidden_HWD.reshape(1, 16, 4))
    assert first.shape == (1, 4, 6)
    upper_right = torch.cat([hidden_HWD[0, 2], hidden_HWD[0, 3], hidden_HWD[1, 2], hidden_HWD[1, 3]])
    torch.testing.assert_close(first[0, 1], connector.layers(upper_right / (1 + 1e-6) ** 0.5))


@pytest.mark.parametrize("tokens", [9, 8, 15])
def test_tokens_that_do_not_merge_are_refused(tokens: int) -> None:
    with pytest.raises(InvalidRequest, match=f"a multiple of 2 tokens, not {tokens} tokens in all"):
        Connector(4, 6, merge_size=2)(torch.zeros(1, tokens, 4))
