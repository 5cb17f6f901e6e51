"""Convert mmdetection's Mask2Former with a Swin backbone to a folder that transformers reads, tensor by tensor.

All sizes are read from the tensors. mmdetection 2.x numbers the attention and feed-forward parts of a layer, 3.x names
them; both spellings are read. Target names are those of transformers' files, which each of its versions understands.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save
from torch import Tensor
from transformers import Mask2FormerConfig, SwinConfig

from forejudge.checkpoint import checkpoint_errors, read_pickle, weights_digest
from forejudge.digests import file_checksum
from forejudge.errors import CheckpointError
from forejudge.evaluators.detector import CLASS_NAMES, ORIGIN_FILE, Mask2Former, Origin, check_classes
from forejudge.files import atomic_folder, is_file, write_bytes, write_text
from forejudge.library_models import load_library_model

WEIGHTS_FILE = "model.safetensors"
_POINTS_PER_HEAD = 3 * 4  # levels and points of the deformable attention, the same in every Mask2Former
_MAX_NAMED = 3  # tensors that an error names

_BACKBONE, _BACKBONE_TO = "backbone", "model.pixel_level_module.encoder"
_PIXELS, _PIXELS_TO = "panoptic_head.pixel_decoder", "model.pixel_level_module.decoder"
_QUERIES, _QUERIES_TO = "panoptic_head.transformer_decoder", "model.transformer_module.decoder"

# Window indices follow from the window's size; the model computes them itself.
_IGNORED = re.compile(r"relative_position_index$")

_SPELLED_BY_3X = (
    (re.compile(r"(?<=pixel_decoder\.encoder\.layers\.)(\d+)\.self_attn\."), r"\1.attentions.0."),
    (re.compile(r"(?<=transformer_decoder\.layers\.)(\d+)\.cross_attn\."), r"\1.attentions.0."),
    (re.compile(r"(?<=transformer_decoder\.layers\.)(\d+)\.self_attn\."), r"\1.attentions.1."),
    (re.compile(r"(?<=coder\.layers\.)(\d+)\.ffn\."), r"\1.ffns.0."),
)

# Modules with a weight and a bias.
_ONCE = {
    f"{_BACKBONE}.patch_embed.projection": f"{_BACKBONE_TO}.embeddings.patch_embeddings.projection",
    f"{_BACKBONE}.patch_embed.norm": f"{_BACKBONE_TO}.embeddings.norm",
    f"{_PIXELS}.mask_feature": f"{_PIXELS_TO}.mask_projection",
    f"{_PIXELS}.lateral_convs.0.gn": f"{_PIXELS_TO}.adapter_1.1",
    f"{_PIXELS}.output_convs.0.gn": f"{_PIXELS_TO}.layer_1.1",
    f"{_QUERIES}.post_norm": f"{_QUERIES_TO}.layernorm",
    "panoptic_head.cls_embed": "class_predictor",
    **{
        f"panoptic_head.mask_embed.{2 * layer}": f"{_QUERIES_TO}.mask_predictor.mask_embedder.{layer}.0"
        for layer in range(3)
    },
    **{f"{_PIXELS}.input_convs.{level}.conv": f"{_PIXELS_TO}.input_projections.{level}.0" for level in range(3)},
    **{f"{_PIXELS}.input_convs.{level}.gn": f"{_PIXELS_TO}.input_projections.{level}.1" for level in range(3)},
}
_SWIN_BLOCK = {
    "norm1": "layernorm_before",
    "norm2": "layernorm_after",
    "attn.w_msa.proj": "attention.output.dense",
    "ffn.layers.0.0": "intermediate.dense",
    "ffn.layers.1": "output.dense",
}
_PIXEL_LAYER = {
    **{
        f"attentions.0.{part}": f"self_attn.{part}"
        for part in ("sampling_offsets", "attention_weights", "value_proj", "output_proj")
    },
    "norms.0": "self_attn_layer_norm",
    "norms.1": "final_layer_norm",
    "ffns.0.layers.0.0": "fc1",
    "ffns.0.layers.1": "fc2",
}
_QUERY_LAYER = {
    "attentions.0.attn.out_proj": "cross_attn.out_proj",
    "attentions.1.attn.out_proj": "self_attn.out_proj",
    "norms.0": "cross_attn_layer_norm",
    "norms.1": "self_attn_layer_norm",
    "norms.2": "final_layer_norm",
    "ffns.0.layers.0.0": "fc1",
    "ffns.0.layers.1": "fc2",
}

# Single tensors.
_TENSORS_ONCE = {
    f"{_PIXELS}.level_encoding.weight": f"{_PIXELS_TO}.level_embed",
    f"{_PIXELS}.lateral_convs.0.conv.weight": f"{_PIXELS_TO}.adapter_1.0.weight",
    f"{_PIXELS}.output_convs.0.conv.weight": f"{_PIXELS_TO}.layer_1.0.weight",
    "panoptic_head.query_embed.weight": "model.transformer_module.queries_embedder.weight",
    "panoptic_head.query_feat.weight": "model.transformer_module.queries_features.weight",
    "panoptic_head.level_embed.weight": "model.transformer_module.level_embed.weight",
}


def convert_detector(source: Path, folder: Path) -> Origin:
    """Convert a .pth file and write config, weights and `Origin` to `folder`, all or nothing.

    Raises CheckpointError naming tensors that are missing, left over or misshapen, and for a file that is no
    Mask2Former with a Swin backbone and COCO's classes; InvalidRequest for a folder that is not empty.
    """
    with checkpoint_errors(source):  # also where a tensor has too few axes
        state = read_state(source)
        config = read_config(state, source)
        tensors = convert_tensors(state, config, source)
    with atomic_folder(folder) as part:
        config.save_pretrained(part)
        write_bytes(part / WEIGHTS_FILE, save(tensors, metadata={"format": "pt"}))
        _check_fit(part, source)
        origin = Origin(file=source.name, sha256=file_checksum(source), weights=weights_digest(part))
        write_text(part / ORIGIN_FILE, origin.model_dump_json(indent=2) + "\n")
    return origin


def read_state(source: Path) -> dict[str, Tensor]:
    """Read the learned tensors of a file by their names in mmdetection 2.x. No code of the file is run.

    Raises CheckpointError.
    """
    if not is_file(source):
        raise CheckpointError(f"{source} is missing: expected mmdetection's weights, a .pth file")
    content = read_pickle(source)
    state = content.get("state_dict", content) if isinstance(content, dict) else {}
    return {spelled_by_2x(name): value for name, value in state.items() if not is_ignored(name)}


def read_config(state: Mapping[str, Tensor], source: Path) -> Mask2FormerConfig:
    """Infer the config from the tensors' sizes. Raises CheckpointError naming a missing tensor."""

    def size(name: str, axis: int = 0) -> int:
        if name not in state:
            raise CheckpointError(f"{source}: tensor {name} is missing: expected mmdetection's Mask2Former with Swin")
        return state[name].shape[axis]

    head, pixels, queries = "panoptic_head", "panoptic_head.pixel_decoder", "panoptic_head.transformer_decoder"
    heads = size(f"{pixels}.encoder.layers.0.attentions.0.attention_weights.weight") // _POINTS_PER_HEAD
    check_classes(size(f"{head}.cls_embed.weight") - 1, source)
    return Mask2FormerConfig(
        backbone_config=_backbone(state, size),
        feature_size=size(f"{pixels}.level_encoding.weight", 1),
        mask_feature_size=size(f"{pixels}.mask_feature.weight"),
        hidden_dim=size(f"{head}.query_feat.weight", 1),
        encoder_feedforward_dim=size(f"{pixels}.encoder.layers.0.ffns.0.layers.0.0.weight"),
        dim_feedforward=size(f"{queries}.layers.0.ffns.0.layers.0.0.weight"),
        encoder_layers=_count(state, f"{pixels}.encoder.layers."),
        decoder_layers=_count(state, f"{queries}.layers.") + 1,  # transformers counts the queries' first answer too
        num_attention_heads=heads,
        num_queries=size(f"{head}.query_feat.weight"),
        id2label=dict(enumerate(CLASS_NAMES)),
        label2id={name: index for index, name in enumerate(CLASS_NAMES)},
        architectures=["Mask2FormerForUniversalSegmentation"],
        dtype="float32",
    )


def _check_fit(folder: Path, source: Path) -> None:
    try:
        load_library_model(Mask2Former, folder, torch.float32)
    except CheckpointError as error:
        raise CheckpointError(f"{source}: {str(error).removeprefix(f'{folder}: ')}") from None


def _backbone(state: Mapping[str, Tensor], size: Any) -> SwinConfig:
    stages = range(_count(state, "backbone.stages."))
    tables = [f"backbone.stages.{stage}.blocks.0.attn.w_msa.relative_position_bias_table" for stage in stages]
    width = size("backbone.patch_embed.projection.weight")
    return SwinConfig(
        patch_size=size("backbone.patch_embed.projection.weight", 2),
        embed_dim=width,
        depths=_depths(state),
        num_heads=[size(table, 1) for table in tables],
        # a table has a row for each of (2 * window - 1)^2 offsets
        window_size=(round(size(tables[0]) ** 0.5) + 1) // 2,
        mlp_ratio=size("backbone.stages.0.blocks.0.ffn.layers.0.0.weight") / width,
        out_features=[f"stage{stage + 1}" for stage in stages],
    )


def _depths(state: Mapping[str, Tensor]) -> list[int]:
    return [_count(state, f"backbone.stages.{stage}.blocks.") for stage in range(_count(state, "backbone.stages."))]


def _count(state: Mapping[str, Tensor], prefix: str) -> int:
    return len({name.removeprefix(prefix).split(".")[0] for name in state if name.startswith(prefix)})


def convert_tensors(state: Mapping[str, Tensor], config: Mask2FormerConfig, source: Path) -> dict[str, Tensor]:
    """Rename tensors to transformers' names. Raises CheckpointError naming tensors that are missing or left over."""
    places = targets(config.backbone_config.depths, config.encoder_layers, config.decoder_layers - 1)
    _refuse(source, sorted(places.keys() - state.keys()), "missing")
    _refuse(source, sorted(state.keys() - places.keys()), "not part of a Mask2Former with Swin")
    tensors: dict[str, Tensor] = {}
    for name, names_to in places.items():
        value = reorder_merged(state[name]) if ".downsample." in name else state[name]
        tensors |= zip(
            names_to, (part.float().contiguous() for part in value.unflatten(0, (len(names_to), -1))), strict=True
        )
    return tensors


def reorder_merged(merged: Tensor) -> Tensor:
    """Reorder a tensor over 2 x 2 merged patches (..., 4 * channels) from mmdetection's order to transformers'.

    mmdetection unfolds: channel by channel, in each the four patches row by row. transformers concatenates: patch by
    patch, column by column.
    """
    by_patch = merged.unflatten(-1, (-1, 4)).transpose(-1, -2)
    return by_patch[..., [0, 2, 1, 3], :].flatten(-2)


def _refuse(source: Path, names: list[str], what: str) -> None:
    if names:
        more = f" and {len(names) - _MAX_NAMED} more" if len(names) > _MAX_NAMED else ""
        raise CheckpointError(f"{source}: tensors are {what}: {', '.join(names[:_MAX_NAMED])}{more}")


def spelled_by_2x(name: str) -> str:
    """Return a tensor's name in the spelling of mmdetection 2.x, from either spelling."""
    for pattern, replacement in _SPELLED_BY_3X:
        name = pattern.sub(replacement, name)
    return name


def is_ignored(name: str) -> bool:
    """Return whether a tensor holds no learned weights."""
    return _IGNORED.search(name) is not None


def targets(depths: Sequence[int], pixel_layers: int, query_layers: int) -> dict[str, tuple[str, ...]]:
    """Map each name in the spelling of 2.x to transformers' names: three for a fused query, key and value, else one.

    `depths` are the block counts of the backbone's stages, the others the layer counts of pixel and query decoder.
    """
    modules = dict(_modules(depths, pixel_layers, query_layers))
    found: dict[str, tuple[str, ...]] = {
        f"{name}.{part}": (f"{to}.{part}",) for name, to in modules.items() for part in ("weight", "bias")
    }
    found |= {name: (to,) for name, to in (_TENSORS_ONCE | dict(_stage_tensors(depths))).items()}
    for layer in range(query_layers):
        name, to = f"{_QUERIES}.layers.{layer}.attentions", f"{_QUERIES_TO}.layers.{layer}"
        for part in ("weight", "bias"):
            found[f"{name}.0.attn.in_proj_{part}"] = (f"{to}.cross_attn.in_proj_{part}",)
            found[f"{name}.1.attn.in_proj_{part}"] = tuple(f"{to}.self_attn.{each}_proj.{part}" for each in "qkv")
    for stage, block in _blocks(depths):
        name = f"{_BACKBONE}.stages.{stage}.blocks.{block}.attn.w_msa.qkv"
        to = f"{_BACKBONE_TO}.encoder.layers.{stage}.blocks.{block}.attention.self"
        for part in ("weight", "bias"):
            found[f"{name}.{part}"] = tuple(f"{to}.{each}.{part}" for each in ("query", "key", "value"))
    return found


def _blocks(depths: Sequence[int]) -> Iterator[tuple[int, int]]:
    for stage, depth in enumerate(depths):
        yield from ((stage, block) for block in range(depth))


def _modules(depths: Sequence[int], pixel_layers: int, query_layers: int) -> Iterator[tuple[str, str]]:
    yield from _ONCE.items()
    for stage, block in _blocks(depths):
        name, to = f"{_BACKBONE}.stages.{stage}.blocks.{block}", f"{_BACKBONE_TO}.encoder.layers.{stage}.blocks.{block}"
        yield from _within(_SWIN_BLOCK, name, to)
    for layer in range(pixel_layers):
        yield from _within(_PIXEL_LAYER, f"{_PIXELS}.encoder.layers.{layer}", f"{_PIXELS_TO}.encoder.layers.{layer}")
    for layer in range(query_layers):
        yield from _within(_QUERY_LAYER, f"{_QUERIES}.layers.{layer}", f"{_QUERIES_TO}.layers.{layer}")
    for stage in range(len(depths)):
        yield f"{_BACKBONE}.norm{stage}", f"{_BACKBONE_TO}.hidden_states_norms.stage{stage + 1}"
    for stage in range(len(depths) - 1):
        yield _downsample(stage, "norm")


def _within(parts: Mapping[str, str], name: str, to: str) -> Iterator[tuple[str, str]]:
    yield from ((f"{name}.{part}", f"{to}.{part_to}") for part, part_to in parts.items())


def _stage_tensors(depths: Sequence[int]) -> Iterator[tuple[str, str]]:
    table = "relative_position_bias_table"
    for stage, block in _blocks(depths):
        to = f"{_BACKBONE_TO}.encoder.layers.{stage}.blocks.{block}.attention.self.{table}"
        yield f"{_BACKBONE}.stages.{stage}.blocks.{block}.attn.w_msa.{table}", to
    for stage in range(len(depths) - 1):
        yield _downsample(stage, "reduction.weight")


def _downsample(stage: int, part: str) -> tuple[str, str]:
    return f"{_BACKBONE}.stages.{stage}.downsample.{part}", f"{_BACKBONE_TO}.encoder.layers.{stage}.downsample.{part}"
