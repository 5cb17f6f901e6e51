"""From hidden states to embeddings."""

import math

import pytest
import torch

from forejudge.candidates.features import channel_statistics
from forejudge.errors import InvalidRequest
from forejudge.types import Grid
from forejudge.verifiers.connector import Connector, StatisticsKind

DRAW = torch.Generator().manual_seed(0)
HIDDEN_NTD = torch.randn(3, 5, 4, generator=DRAW) * torch.tensor([1.0, 10.0, 0.1, 3.0]) + torch.arange(4.0)


def test_the_connector_is_standardize_linear_exact_gelu_linear() -> None:
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


@pytest.mark.parametrize(
    ("grid", "neighbors"), [((16, 64), [0, 1, 64, 65]), ((64, 16), [0, 1, 16, 17]), ((32, 32), [0, 1, 32, 33])]
)
def test_neighbors_follow_from_the_grid_of_an_image(grid: Grid, neighbors: list[int]) -> None:
    """All three have 1024 tokens."""
    connector = Connector(1, 4, merge_size=2, statistics="none")
    connector.layers = torch.nn.Sequential(torch.nn.Linear(4, 4, bias=False))
    connector.layers[0].weight.data = torch.eye(4)
    merged_NTD = connector(torch.arange(1024.0).view(1, 1024, 1), grid)
    assert merged_NTD[0, 0].tolist() == neighbors
    assert merged_NTD[0, grid[1] // 2].tolist() == [token + 2 * grid[1] for token in neighbors]


@pytest.mark.parametrize("tokens", [9, 8, 15])
def test_tokens_that_do_not_merge_are_refused(tokens: int) -> None:
    with pytest.raises(InvalidRequest, match=f"a multiple of 2 tokens, not {tokens} tokens in all"):
        Connector(4, 6, merge_size=2)(torch.zeros(1, tokens, 4))


@pytest.mark.parametrize("grid", [(3, 12), (12, 3), (4, 8)])
def test_a_grid_that_does_not_merge_is_refused(grid: Grid) -> None:
    with pytest.raises(InvalidRequest, match=f"merges 2 x 2 .* not {grid[0]} rows of {grid[1]} tokens: choose"):
        Connector(4, 6, merge_size=2)(torch.zeros(1, 36, 4), grid)


@pytest.mark.parametrize(
    ("kind", "axes", "shape"), [("channel", (0, 1), (4,)), ("token", (0, 2), (5, 1)), ("global", (0, 1, 2), (1,))]
)
def test_statistics_of_channels_tokens_or_all_values_standardize(
    kind: StatisticsKind, axes: tuple[int, ...], shape: tuple[int, ...]
) -> None:
    connector = Connector(4, 6, statistics=kind, tokens=5)
    mean, variance = HIDDEN_NTD.mean(axes).view(shape), HIDDEN_NTD.var(axes).view(shape)
    connector.set_statistics(mean, variance)
    standard = (HIDDEN_NTD - HIDDEN_NTD.mean(axes, keepdim=True)) / (HIDDEN_NTD.var(axes, keepdim=True) + 1e-6).sqrt()
    torch.testing.assert_close(connector(HIDDEN_NTD), connector.layers(standard))
    torch.testing.assert_close(connector(connector.mean_states(HIDDEN_NTD)), connector.layers(torch.zeros(3, 5, 4)))


def test_without_statistics_states_are_read_as_they_are() -> None:
    connector = Connector(4, 6, statistics="none")
    assert torch.equal(connector(HIDDEN_NTD), connector.layers(HIDDEN_NTD))
    assert torch.equal(connector.mean_states(HIDDEN_NTD), torch.zeros(3, 5, 4))
    assert set(connector.state_dict()) == {name for name in Connector(4, 6).state_dict() if name.startswith("layers")}


def test_states_are_standardized_in_the_wider_of_their_dtype_and_the_statistics() -> None:
    connector, mean, variance = Connector(4, 6), HIDDEN_NTD.mean((0, 1)), HIDDEN_NTD.var((0, 1))
    half_NTD = HIDDEN_NTD.bfloat16()
    connector.set_statistics(mean, variance)
    in_float32 = (half_NTD.float() - mean) / (variance + 1e-6).sqrt()
    assert torch.equal(connector(half_NTD), connector.layers(in_float32))
    connector.set_statistics(mean.bfloat16(), variance.bfloat16())
    in_bfloat16 = (half_NTD - mean.bfloat16()) / (variance.bfloat16() + 1e-6).sqrt()
    assert in_bfloat16.dtype == torch.bfloat16
    assert torch.equal(connector(half_NTD), connector.layers(in_bfloat16.float()))


def test_statistics_of_each_token_are_for_so_many_tokens() -> None:
    with pytest.raises(InvalidRequest, match="each of 5 tokens cannot read an image of 4"):
        Connector(4, 6, statistics="token", tokens=5)(torch.zeros(1, 4, 4))


def test_statistics_of_each_token_are_for_a_square() -> None:
    connector = Connector(4, 6, statistics="token", tokens=16)
    assert torch.equal(connector(torch.zeros(1, 16, 4), (4, 4)), connector(torch.zeros(1, 16, 4)))
    with pytest.raises(InvalidRequest, match="each of 16 tokens cannot read an image of 2 rows of 8 tokens"):
        connector(torch.zeros(1, 16, 4), (2, 8))
