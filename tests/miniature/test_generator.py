"""The generator's parts: read after its first half, and made deeper without a change."""

import pytest
import torch
from torch import Tensor

from forejudge.miniature.coupling import NOISE_SHAPE
from forejudge.miniature.generator import GeneratorParts

DRAW = torch.Generator().manual_seed(0)
INPUTS = (
    torch.randint(5, 100, (3, 6), generator=DRAW),
    torch.tensor([[1, 1, 1, 1, 1, 1], [1, 1, 1, 1, 0, 0], [1, 1, 0, 0, 0, 0]]),
    torch.randn(3, *NOISE_SHAPE, generator=DRAW),
    torch.tensor([1.0, 0.5, 0.2]),
)


@pytest.fixture(scope="module")
def shallow() -> GeneratorParts:
    """Of weights that are nowhere zero, as training leaves them."""
    torch.manual_seed(0)
    parts = GeneratorParts(2, 64, decided_after=2)
    for weight in parts.parameters():
        weight.data += 0.02 * torch.randn(weight.shape, generator=DRAW)
    return parts.eval()


@torch.no_grad()
def drawn(parts: GeneratorParts) -> tuple[Tensor, Tensor]:
    velocity, decided = parts(*INPUTS)
    return velocity, decided


def test_new_blocks_change_nothing_at_first(shallow: GeneratorParts) -> None:
    deep = shallow.deepened(4).eval()
    assert len(deep.transformer.transformer_blocks) == 4
    for found in drawn(deep):
        torch.testing.assert_close(found, drawn(shallow)[0], atol=1e-5, rtol=1e-5)


def test_new_blocks_learn(shallow: GeneratorParts) -> None:
    """All of their output layers, from the first step."""
    deep = shallow.deepened(4)
    velocity, _ = deep(*INPUTS)
    velocity.square().sum().backward()
    for block in list(deep.transformer.transformer_blocks)[2:]:
        outputs = {name: weight for name, weight in block.named_parameters() if "to_out" in name or "point" in name}
        assert outputs
        assert all(weight.grad is not None and weight.grad.abs().max() > 0 for weight in outputs.values())


def test_deepening_leaves_the_shallow_ones_alone(shallow: GeneratorParts) -> None:
    before = drawn(shallow)[0]
    deep = shallow.deepened(3)
    for weight in deep.parameters():
        weight.data.zero_()
    assert torch.equal(drawn(shallow)[0], before)


def test_what_is_decided_comes_from_the_first_blocks_alone(shallow: GeneratorParts) -> None:
    deep = shallow.deepened(4).eval()
    for block in list(deep.transformer.transformer_blocks)[2:]:
        for weight in block.parameters():
            weight.data.normal_(generator=DRAW)
    velocity, decided = drawn(deep)
    torch.testing.assert_close(decided, drawn(shallow)[0], atol=1e-5, rtol=1e-5)
    assert not torch.allclose(velocity, decided, atol=1e-2)
