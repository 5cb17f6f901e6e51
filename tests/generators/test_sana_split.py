"""The transformer in two halves: bit for bit what the library's own forward pass gives, wherever it is cut."""

from collections.abc import Iterator
from dataclasses import fields
from typing import Any

import pytest
import torch
from diffusers import SanaTransformer2DModel
from torch import Tensor

from forejudge.generators.adaln_single import AdaLNSingleHidden
from forejudge.generators.sana_split import SanaInput, prefix, run_blocks, suffix

BLOCKS = 4
VARIANTS: dict[str, dict[str, Any]] = {
    "as the miniature": {"interpolation_scale": 1, "qk_norm": "rms_norm_across_heads"},
    "without query and key norms": {"qk_norm": None},
    "with patches of 2": {"patch_size": 2, "qk_norm": "rms_norm_across_heads"},
    "narrow and tall": {"sample_size": 4, "interpolation_scale": 1, "qk_norm": "rms_norm_across_heads"},
}


@pytest.fixture(scope="module", params=list(VARIANTS))
def transformer(request: pytest.FixtureRequest) -> SanaTransformer2DModel:
    """An untrained transformer whose output depends on all that goes in."""
    torch.manual_seed(0)
    options = {"sample_size": 8, "guidance_embeds": True, "timestep_scale": 1000.0, **VARIANTS[request.param]}
    return SanaTransformer2DModel(
        in_channels=16,
        out_channels=16,
        num_attention_heads=2,
        attention_head_dim=32,
        num_layers=BLOCKS,
        num_cross_attention_heads=2,
        cross_attention_head_dim=32,
        cross_attention_dim=64,
        caption_channels=24,
        **options,
    ).eval()


@pytest.fixture(autouse=True)
def without_gradients() -> Iterator[None]:
    with torch.no_grad():
        yield


def inputs(count: int, dtype: torch.dtype = torch.float32) -> SanaInput:
    """A batch whose texts have different lengths, padded on the right, at different times."""
    draw = torch.Generator().manual_seed(count)
    lengths = torch.arange(3, 3 + 4 * count, 4)
    return SanaInput(
        torch.randn(count, 16, 8, 4, generator=draw).to(dtype),
        torch.randn(count, 20, 24, generator=draw).to(dtype),
        (torch.arange(20) < lengths[:, None]).long(),
        torch.linspace(1, 0.3, count),
        torch.full((count,), 0.45).to(dtype),
    )


def forward(transformer: SanaTransformer2DModel, given: SanaInput) -> Tensor:
    """The library's own forward pass."""
    output: Tensor = transformer(
        given.latents_NCHW,
        encoder_hidden_states=given.text_NLD,
        encoder_attention_mask=given.mask_NL,
        timestep=given.timestep_N,
        guidance=given.guidance_N,
        return_dict=False,
    )[0]
    return output


@pytest.mark.parametrize("count", [1, 3])
@pytest.mark.parametrize("cut", range(BLOCKS + 1))
def test_suffix_of_prefix_is_the_forward_pass(transformer: SanaTransformer2DModel, cut: int, count: int) -> None:
    given = inputs(count)
    output = suffix(transformer, prefix(transformer, given, cut), cut)
    assert torch.equal(output, forward(transformer, given))
    assert output.shape == given.latents_NCHW.shape


@pytest.mark.parametrize(("first", "second"), [(0, 1), (1, 3), (2, 2), (3, 4), (0, 4)])
def test_stopping_twice_changes_nothing(transformer: SanaTransformer2DModel, first: int, second: int) -> None:
    given = inputs(3)
    state = run_blocks(transformer, prefix(transformer, given, first), first, second)
    assert torch.equal(state.hidden_NTD, prefix(transformer, given, second).hidden_NTD)
    assert torch.equal(suffix(transformer, state, second), forward(transformer, given))


@pytest.mark.parametrize("cut", [0, 2, BLOCKS])
def test_in_half_precision_too(transformer: SanaTransformer2DModel, cut: int) -> None:
    transformer = SanaTransformer2DModel.from_config(transformer.config).to(torch.bfloat16).eval()
    given = inputs(3, torch.bfloat16)
    output = suffix(transformer, prefix(transformer, given, cut), cut)
    assert output.dtype == torch.bfloat16
    assert torch.equal(output, forward(transformer, given))


def test_the_state_is_the_hidden_state_after_that_many_blocks(transformer: SanaTransformer2DModel) -> None:
    seen: list[Tensor] = []
    hook = transformer.transformer_blocks[1].register_forward_hook(lambda *call: seen.append(call[-1]))
    forward(transformer, inputs(3))
    hook.remove()
    assert torch.equal(prefix(transformer, inputs(3), 2).hidden_NTD, seen[0])


def test_every_input_matters(transformer: SanaTransformer2DModel) -> None:
    """Else the equalities above would show little: each input, the mask's padding too, moves the output."""
    given = inputs(3)
    plain = forward(transformer, given)
    for field in fields(SanaInput):
        value = getattr(given, field.name)
        changed = torch.ones_like(value) if field.name == "mask_NL" else value + 0.5
        other = SanaInput(**{**vars(given), field.name: changed})
        assert not torch.allclose(suffix(transformer, prefix(transformer, other, 2), 2), plain, atol=1e-5), field.name


def test_rows_of_a_state_go_on_alone(transformer: SanaTransformer2DModel) -> None:
    state = prefix(transformer, inputs(3), 2)
    whole = suffix(transformer, state, 2)
    chosen = state[[2, 0]]
    torch.testing.assert_close(suffix(transformer, chosen, 2), whole[[2, 0]], rtol=0, atol=1e-5)
    assert chosen.grid == state.grid


def test_rows_of_a_state_hold_no_memory_of_the_others(transformer: SanaTransformer2DModel) -> None:
    chosen = prefix(transformer, inputs(3), 2)[[1]]
    tensors = [value for value in vars(chosen).values() if isinstance(value, Tensor)]
    assert len(tensors) == len(fields(AdaLNSingleHidden)) - 1
    for tensor in tensors:
        assert len(tensor) == 1
        assert tensor.untyped_storage().nbytes() == tensor.numel() * tensor.element_size()
