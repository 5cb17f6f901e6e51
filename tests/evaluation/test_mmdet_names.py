import pytest

from forejudge.evaluation.mmdet_names import is_ignored, spelled_by_2x, targets

REAL = targets((2, 2, 18, 2), 6, 9)


def test_no_two_tensors_go_to_one_place() -> None:
    places = [place for names in REAL.values() for place in names]
    assert len(places) == len(set(places))


def test_fused_tensors_go_to_three_places() -> None:
    fused = {name for name, places in REAL.items() if len(places) == 3}
    assert len(fused) == 2 * (24 + 9)
    assert {len(places) for places in REAL.values()} == {1, 3}
    assert all("qkv" in name or "attentions.1.attn.in_proj" in name for name in fused)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("pixel_decoder.encoder.layers.5.self_attn.value_proj.bias", "layers.5.attentions.0.value_proj.bias"),
        ("pixel_decoder.encoder.layers.0.ffn.layers.0.0.weight", "layers.0.ffns.0.layers.0.0.weight"),
        ("transformer_decoder.layers.8.cross_attn.attn.in_proj_bias", "layers.8.attentions.0.attn.in_proj_bias"),
        ("transformer_decoder.layers.8.self_attn.attn.out_proj.bias", "layers.8.attentions.1.attn.out_proj.bias"),
        ("transformer_decoder.layers.0.ffn.layers.1.bias", "layers.0.ffns.0.layers.1.bias"),
    ],
)
def test_names_of_version_3_become_those_of_version_2(name: str, expected: str) -> None:
    spelled = spelled_by_2x(f"panoptic_head.{name}")
    assert spelled.endswith(expected)
    assert spelled in REAL


def test_names_that_both_versions_share_stay() -> None:
    assert all(spelled_by_2x(name) == name for name in REAL)


def test_window_indices_are_no_weights() -> None:
    assert is_ignored("backbone.stages.0.blocks.0.attn.w_msa.relative_position_index")
    assert not any(map(is_ignored, REAL))
