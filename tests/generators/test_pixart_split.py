"""The transformer in two halves: bit for bit what the library's own forward pass gives, wherever it is cut."""

from collections.abc import Iterator
from dataclasses import fields, replace
from typing import Any

import pytest
import torch
from diffusers import PixArtTransformer2DModel
from tests.tiny_pixart import BLOCKS, new_transformer
from torch import Tensor

from forejudge.generators.adaln_single import AdaLNSingleHidden
from forejudge.generators.pixart_split import PixArtInput, prefix, run_blocks, suffix

VARIANTS: dict[str, dict[str, Any]] = {
    "as published for 512 px": {"use_additional_conditions": False},
    "told the picture's size": {"use_additional_conditions": True},
    "with patches of 1": {"patch_size": 1},
    "without a projection of the text": {"caption_channels": None},
    "made for another size": {"sample_size": 4},
}


@pytest.fixture(scope="module", params=list(VARIANTS))
def transformer(request: pytest.FixtureRequest) -> PixArtTransformer2DModel:
    torch.manual_seed(0)
    return new_transformer(**VARIANTS[request.param])


@pytest.fixture(autouse=True)
def without_gradients() -> Iterator[None]:
    with torch.no_grad():
        yield


def inputs(transformer: PixArtTransformer2DModel, count: int) -> PixArtInput:
    """A batch whose texts have different lengths, padded on the right, at different times."""
    draw, dtype = torch.Generator().manual_seed(count), transformer.dtype
    text_width = transformer.config.caption_channels or transformer.config.cross_attention_dim
    given = PixArtInput(
        torch.randn(count, 4, 8, 4, generator=draw).to(dtype),
        torch.randn(count, 20, text_width, generator=draw).to(dtype),
        (torch.arange(20) < torch.arange(3, 3 + 4 * count, 4)[:, None]).long(),
        torch.linspace(400, 900, count).long(),
    )
    if not transformer.use_additional_conditions:
        return given
    sizes = torch.tensor([[64.0, 32.0]] * count, dtype=dtype)
    return replace(given, resolution_N2=sizes, aspect_ratio_N1=torch.full((count, 1), 2.0, dtype=dtype))


def forward(transformer: PixArtTransformer2DModel, given: PixArtInput) -> Tensor:
    """The library's own forward pass."""
    output: Tensor = transformer(
        given.latents_NCHW,
        encoder_hidden_states=given.text_NLD,
        encoder_attention_mask=given.mask_NL,
        timestep=given.timestep_N,
        added_cond_kwargs={"resolution": given.resolution_N2, "aspect_ratio": given.aspect_ratio_N1},
        return_dict=False,
    )[0]
    return output


@pytest.mark.parametrize("count", [1, 3])
@pytest.mark.parametrize("cut", range(BLOCKS + 1))
def test_suffix_of_prefix_is_the_forward_pass(transformer: PixArtTransformer2DModel, cut: int, count: int) -> None:
    given = inputs(transformer, count)
    output = suffix(transformer, prefix(transformer, given, cut), cut)
    assert torch.equal(output, forward(transformer, given))
    assert output.shape == (count, 8, 8, 4)


@pytest.mark.parametrize(("first", "second"), [(0, 1), (1, 3), (2, 2), (0, 3)])
def test_stopping_twice_changes_nothing(transformer: PixArtTransformer2DModel, first: int, second: int) -> None:
    given = inputs(transformer, 3)
    state = run_blocks(transformer, prefix(transformer, given, first), first, second)
    assert torch.equal(state.hidden_NTD, prefix(transformer, given, second).hidden_NTD)
    assert torch.equal(suffix(transformer, state, second), forward(transformer, given))


@pytest.mark.parametrize("count", [1, 3])
@pytest.mark.parametrize("cut", [0, 2, BLOCKS])
def test_in_half_precision_too(transformer: PixArtTransformer2DModel, cut: int, count: int) -> None:
    transformer = PixArtTransformer2DModel.from_config(transformer.config).to(torch.bfloat16).eval()
    given = inputs(transformer, count)
    output = suffix(transformer, prefix(transformer, given, cut), cut)
    assert output.dtype == torch.bfloat16
    assert torch.equal(output, forward(transformer, given))


def test_the_state_is_the_hidden_state_after_that_many_blocks(transformer: PixArtTransformer2DModel) -> None:
    seen: list[Tensor] = []
    hook = transformer.transformer_blocks[1].register_forward_hook(lambda *call: seen.append(call[-1]))
    forward(transformer, inputs(transformer, 3))
    hook.remove()
    assert torch.equal(prefix(transformer, inputs(transformer, 3), 2).hidden_NTD, seen[0])


def test_every_input_matters(transformer: PixArtTransformer2DModel) -> None:
    """Else the equalities above would show little: each input, the mask's padding too, moves the output."""
    given = inputs(transformer, 3)
    plain = forward(transformer, given)
    for name, value in vars(given).items():
        if value is None:
            continue
        changed = torch.ones_like(value) if name == "mask_NL" else value + 2
        moved = suffix(transformer, prefix(transformer, replace(given, **{name: changed}), 2), 2)
        assert not torch.allclose(moved, plain, atol=1e-5), name


def test_rows_of_a_state_go_on_alone(transformer: PixArtTransformer2DModel) -> None:
    state = prefix(transformer, inputs(transformer, 3), 2)
    whole = suffix(transformer, state, 2)
    chosen = state[[2, 0]]
    torch.testing.assert_close(suffix(transformer, chosen, 2), whole[[2, 0]], rtol=0, atol=1e-5)
    assert chosen.grid == state.grid


def test_rows_of_a_state_hold_no_memory_of_the_others(transformer: PixArtTransformer2DModel) -> None:
    chosen = prefix(transformer, inputs(transformer, 3), 2)[[1]]
    tensors = [value for value in vars(chosen).values() if isinstance(value, Tensor)]
    assert len(tensors) == len(fields(AdaLNSingleHidden)) - 1
    for tensor in tensors:
        assert len(tensor) == 1
        assert tensor.untyped_storage().nbytes() == tensor.numel() * tensor.element_size()
