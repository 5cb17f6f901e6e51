"""Parts of one-step generators: read after their first half, and made deeper without a change."""

import pytest
import torch
from torch import Tensor

from forejudge.miniature.scenes import NOISE_SHAPE
from research.miniature.generator import GeneratorParts
from research.miniature.one_step import OneStepParts
from research.miniature.pixart_generator import PixArtParts

DRAW = torch.Generator().manual_seed(0)
INPUTS = (
    torch.randint(5, 70, (3, 6), generator=DRAW),
    torch.tensor([[1, 1, 1, 1, 1, 1], [1, 1, 1, 1, 0, 0], [1, 1, 0, 0, 0, 0]]),
    torch.randn(3, *NOISE_SHAPE, generator=DRAW),
    torch.tensor([1.0, 0.5, 0.2]),
)


@pytest.fixture(scope="module", params=[GeneratorParts, PixArtParts])
def shallow(request: pytest.FixtureRequest) -> OneStepParts:
    """Parts whose weights are nowhere zero, as after training."""
    torch.manual_seed(0)
    parts: OneStepParts = request.param(2, 64, 2)
    for weight in parts.parameters():
        weight.data += 0.02 * torch.randn(weight.shape, generator=DRAW)
    return parts.eval()


@torch.no_grad()
def drawn(parts: OneStepParts) -> tuple[Tensor, Tensor]:
    predicted, decided = parts(*INPUTS)
    return predicted, decided


def test_new_blocks_change_nothing_at_first(shallow: OneStepParts) -> None:
    deep = shallow.deepen(4).eval()
    assert len(deep.transformer.transformer_blocks) == 4
    for found in drawn(deep):
        torch.testing.assert_close(found, drawn(shallow)[0], atol=1e-5, rtol=1e-5)


def test_new_blocks_learn(shallow: OneStepParts) -> None:
    """All of their output layers, from the first step."""
    deep = shallow.deepen(4)
    predicted, _ = deep(*INPUTS)
    predicted.square().sum().backward()
    for block in list(deep.transformer.transformer_blocks)[2:]:
        named = dict(block.named_parameters())
        output_layers = {
            name: weight for name, weight in named.items() if any(part in name for part in deep.output_layers)
        }
        assert len(output_layers) >= 3
        assert all(weight.grad is not None and weight.grad.abs().max() > 0 for weight in output_layers.values())


def test_deepening_leaves_the_shallow_ones_alone(shallow: OneStepParts) -> None:
    before = drawn(shallow)[0]
    deep = shallow.deepen(3)
    for weight in deep.parameters():
        weight.data.zero_()
    assert torch.equal(drawn(shallow)[0], before)


def test_what_is_decided_comes_from_the_first_blocks_alone(shallow: OneStepParts) -> None:
    deep = shallow.deepen(4).eval()
    for block in list(deep.transformer.transformer_blocks)[2:]:
        for weight in block.parameters():
            weight.data.normal_(generator=DRAW)
    predicted, decided = drawn(deep)
    torch.testing.assert_close(decided, drawn(shallow)[0], atol=1e-5, rtol=1e-5)
    assert not torch.allclose(predicted, decided, atol=1e-2)
