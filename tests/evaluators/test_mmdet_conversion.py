import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from torch import Tensor, nn
from transformers.models.mask2former import modeling_mask2former
from transformers.models.swin.modeling_swin import SwinPatchMerging

from forejudge.errors import CheckpointError, InvalidRequest
from forejudge.evaluators.detector import CLASS_NAMES, Mask2Former, read_origin
from forejudge.evaluators.mmdet_conversion import (
    convert_detector,
    is_ignored,
    read_config,
    reorder_merged,
    spelled_by_2x,
    targets,
)
from forejudge.library_models import load_library_model
from tests.support.tiny_detector import mmdetection_window_index, tiny_mask2former, to_mmdetection_state_dict

State = dict[str, Tensor]


@pytest.fixture(scope="module")
def model() -> Mask2Former:
    return tiny_mask2former()


@pytest.fixture(scope="module")
def written(model: Mask2Former, tmp_path_factory: pytest.TempPathFactory) -> State:
    return to_mmdetection_state_dict(model, tmp_path_factory.mktemp("named"))


@pytest.fixture
def state(written: State) -> State:
    return dict(written)


def converted(state: State, folder: Path, **more: Any) -> Path:
    torch.save({"state_dict": state, "meta": {"CLASSES": list(CLASS_NAMES)}, **more}, folder / "weights.pth")
    convert_detector(folder / "weights.pth", folder / "detector")
    return folder / "detector"


def outputs(model: nn.Module) -> tuple[Tensor, Tensor]:
    pixels = torch.randn(1, 3, 64, 96, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        classes, masks = model(pixels)
    return classes, masks


def test_converted_weights_give_what_the_model_gave(model: Mask2Former, state: State, tmp_path: Path) -> None:
    loaded = load_library_model(Mask2Former, converted(state, tmp_path), torch.float32)
    for found, expected in zip(outputs(loaded), outputs(model), strict=True):
        assert torch.equal(found, expected)


def spelled_by_3x(name: str) -> str:
    name = re.sub(r"(pixel_decoder.*)attentions\.0\.", r"\1self_attn.", name)
    name = re.sub(r"(transformer_decoder.*)attentions\.0\.", r"\1cross_attn.", name)
    name = re.sub(r"(transformer_decoder.*)attentions\.1\.", r"\1self_attn.", name)
    return name.replace(".ffns.0.", ".ffn.")


def test_the_names_of_both_versions_are_read(model: Mask2Former, state: State, tmp_path: Path) -> None:
    renamed = {spelled_by_3x(name): value for name, value in state.items()}
    assert "panoptic_head.transformer_decoder.layers.3.cross_attn.attn.in_proj_weight" in renamed
    loaded = load_library_model(Mask2Former, converted(renamed, tmp_path), torch.float32)
    assert torch.equal(outputs(loaded)[1], outputs(model)[1])


def test_transformers_own_class_reads_the_folder(
    model: Mask2Former, state: State, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(modeling_mask2former, "requires_backends", lambda *arguments: None)  # scipy, for its loss
    kind = modeling_mask2former.Mask2FormerForUniversalSegmentation
    theirs, report = kind.from_pretrained(converted(state, tmp_path), output_loading_info=True)
    unused = {name for name in report["missing_keys"] if ".swin.layernorm." in name}  # no image goes through it
    assert set(report["missing_keys"]) - unused <= {"criterion.empty_weight"}
    assert not report["unexpected_keys"]
    pixels = torch.randn(1, 3, 64, 96, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        answer = theirs(pixel_values=pixels)
    for found, expected in zip((answer.class_queries_logits, answer.masks_queries_logits), outputs(model), strict=True):
        torch.testing.assert_close(found, expected)


def test_classes_and_origin_are_in_the_folder(state: State, tmp_path: Path) -> None:
    folder = converted(state, tmp_path)
    assert sorted(path.name for path in folder.iterdir()) == ["config.json", "model.safetensors", "origin.json"]
    origin = read_origin(folder)
    assert origin is not None
    assert origin.file == "weights.pth"
    assert not origin.is_genevals
    with safe_open(folder / "model.safetensors", "pt") as file:
        assert file.metadata() == {"format": "pt"}
    assert '"architectures": [\n    "Mask2FormerForUniversalSegmentation"' in (folder / "config.json").read_text()
    assert '"79": "toothbrush"' in (folder / "config.json").read_text()


def drop(name: str) -> Callable[[State], object]:
    return lambda state: state.pop(name)


def put(name: str, *shape: int) -> Callable[[State], object]:
    return lambda state: state.update({name: torch.zeros(shape)})


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (drop("panoptic_head.level_embed.weight"), "tensors are missing: panoptic_head.level_embed.weight"),
        (drop("backbone.norm2.bias"), "tensors are missing: backbone.norm2.bias"),
        (drop("panoptic_head.cls_embed.weight"), "tensor panoptic_head.cls_embed.weight is missing"),
        (
            drop("backbone.stages.2.blocks.1.attn.w_msa.qkv.bias"),
            "tensors are missing: backbone.stages.2.blocks.1.attn.w_msa.qkv.bias",
        ),
        (put("bbox_head.fc.weight", 2, 2), "not part of a Mask2Former with Swin: bbox_head.fc.weight"),
        (put("panoptic_head.cls_embed.weight", 134, 32), "knows 133 classes, expected COCO's 80"),
        (put("panoptic_head.mask_embed.4.bias", 3), "has shape (3,), expected (16,)"),
        (put("backbone.stages.1.downsample.norm.bias", 6), "cannot be loaded"),
        (put("backbone.stages.1.blocks.0.attn.w_msa.qkv.bias", 1), "cannot be loaded"),
        (put("panoptic_head.query_feat.weight", 6), "cannot be loaded"),
    ],
)
def test_what_does_not_fit_is_named(state: State, tmp_path: Path, change: Callable[[State], object], said: str) -> None:
    change(state)
    with pytest.raises(CheckpointError) as refused:
        converted(state, tmp_path)
    assert said in str(refused.value)
    assert str(refused.value).startswith(str(tmp_path / "weights.pth"))
    assert [path.name for path in tmp_path.iterdir()] == ["weights.pth"], "nothing is left"


def test_many_wrong_tensors_are_not_all_named(state: State, tmp_path: Path) -> None:
    for name in [name for name in state if ".norms.1." in name]:
        state.pop(name)
    with pytest.raises(CheckpointError, match=r"norms\.1\.bias and 9 more"):
        converted(state, tmp_path)


def test_a_file_that_would_run_code_is_refused(state: State, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="asks for code to be run") as refused:
        converted(state, tmp_path, recipe=Path("any"))
    assert "\n" not in str(refused.value)


def test_a_file_without_tensors_is_named(tmp_path: Path) -> None:
    for content in ({"state_dict": 5}, [1, 2], {}):
        torch.save(content, tmp_path / "weights.pth")
        with pytest.raises(CheckpointError, match=r"weights\.pth"):
            convert_detector(tmp_path / "weights.pth", tmp_path / "detector")


@pytest.mark.parametrize("content", [b"", b"not weights"])
def test_a_file_of_another_kind_is_named(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "weights.pth").write_bytes(content)
    with pytest.raises(CheckpointError, match=r"weights\.pth"):
        convert_detector(tmp_path / "weights.pth", tmp_path / "detector")
    with pytest.raises(CheckpointError, match=r"none\.pth is missing"):
        convert_detector(tmp_path / "none.pth", tmp_path / "detector")


def test_a_folder_that_holds_something_is_kept(state: State, tmp_path: Path) -> None:
    (tmp_path / "detector").mkdir()
    (tmp_path / "detector" / "mine").touch()
    with pytest.raises(InvalidRequest, match="exists already"):
        converted(state, tmp_path)


def test_the_sizes_of_genevals_detector_are_read_off(state: State) -> None:
    """Its config: Swin-S, 6 and 9 layers of width 256."""
    shapes = {
        "backbone.patch_embed.projection.weight": (96, 3, 4, 4),
        "backbone.stages.0.blocks.0.ffn.layers.0.0.weight": (384, 96),
        "panoptic_head.pixel_decoder.level_encoding.weight": (3, 256),
        "panoptic_head.pixel_decoder.mask_feature.weight": (256, 256, 1, 1),
        "panoptic_head.query_feat.weight": (100, 256),
        "panoptic_head.cls_embed.weight": (81, 256),
    }
    for stage, (depth, heads) in enumerate(zip((2, 2, 18, 2), (3, 6, 12, 24), strict=True)):
        for block in range(depth):
            shapes[f"backbone.stages.{stage}.blocks.{block}.attn.w_msa.relative_position_bias_table"] = (169, heads)
    for layer in range(6):
        name = f"panoptic_head.pixel_decoder.encoder.layers.{layer}"
        shapes[f"{name}.attentions.0.attention_weights.weight"] = (96, 256)
        shapes[f"{name}.ffns.0.layers.0.0.weight"] = (1024, 256)
    for layer in range(9):
        shapes[f"panoptic_head.transformer_decoder.layers.{layer}.ffns.0.layers.0.0.weight"] = (2048, 256)
    meta = {name: torch.empty(shape, device="meta") for name, shape in shapes.items()}
    config = read_config(meta, Path("weights.pth"))
    backbone = config.backbone_config
    assert (backbone.embed_dim, backbone.depths, backbone.num_heads) == (96, [2, 2, 18, 2], [3, 6, 12, 24])
    assert (backbone.window_size, backbone.mlp_ratio, backbone.patch_size) == (7, 4, 4)
    assert (config.encoder_layers, config.decoder_layers, config.num_attention_heads) == (6, 10, 8)
    assert (config.hidden_dim, config.feature_size, config.mask_feature_size) == (256, 256, 256)
    assert (config.encoder_feedforward_dim, config.dim_feedforward, config.num_queries) == (1024, 2048, 100)


def test_merged_patches_are_reordered_as_unfolding_merges_them() -> None:
    """mmdetection's patch merging, written with nn.Unfold, against transformers' with the reordered weights."""
    channels, height, width = 5, 6, 4
    torch.manual_seed(0)
    norm, reduction = nn.LayerNorm(4 * channels), nn.Linear(4 * channels, 2 * channels, bias=False)
    nn.init.normal_(norm.weight)
    nn.init.normal_(norm.bias)
    x_BNC = torch.randn(2, height * width, channels)
    unfolded = nn.Unfold(kernel_size=2, stride=2)(x_BNC.transpose(1, 2).unflatten(-1, (height, width)))
    expected = reduction(norm(unfolded.transpose(1, 2)))

    merging = SwinPatchMerging(channels)
    merging.load_state_dict(
        {
            "norm.weight": reorder_merged(norm.weight),
            "norm.bias": reorder_merged(norm.bias),
            "reduction.weight": reorder_merged(reduction.weight),
        }
    )
    torch.testing.assert_close(merging(x_BNC, (height, width)), expected)


@pytest.mark.parametrize("side", [3, 7])
def test_window_indices_are_those_that_transformers_makes(side: int) -> None:
    """They are left out of a conversion, so both must count alike."""
    at = torch.cartesian_prod(torch.arange(side), torch.arange(side))
    offset = at[:, None] - at[None] + side - 1
    assert torch.equal(mmdetection_window_index(side), offset[..., 0] * (2 * side - 1) + offset[..., 1])


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
