"""mmdetection's Mask2Former weights to a folder that transformers reads, tensor by tensor and none left over.

All sizes are read off the tensors.
"""

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save
from torch import Tensor
from transformers import Mask2FormerConfig, SwinConfig

from forejudge.checkpoint import read_pickle, weights_digest
from forejudge.errors import CheckpointError
from forejudge.evaluation.coco import CLASS_NAMES
from forejudge.evaluation.mask2former import ORIGIN_FILE, Mask2Former, Origin, check_classes
from forejudge.evaluation.mmdet_names import is_ignored, spelled_by_2x, targets
from forejudge.files import whole_folder, write_bytes, write_text
from forejudge.library_calls import named_file
from forejudge.library_models import load_library_model

WEIGHTS_FILE = "model.safetensors"
_POINTS_PER_HEAD = 3 * 4  # levels and points of the deformable attention, the same in every Mask2Former
_NAMED = 3  # tensors that an error names


def convert_detector(source: Path, folder: Path) -> Origin:
    """Write config, weights and `Origin`, all or nothing.

    Raises CheckpointError naming tensors that are missing, left over or misshapen, and for a file that is no
    Mask2Former with a Swin backbone and COCO's classes; InvalidRequest for a folder that holds something.
    """
    with named_file(source):  # also where a tensor has too few axes
        state = read_state(source)
        config = read_config(state, source)
        tensors = convert_tensors(state, config, source)
    with whole_folder(folder) as part:
        config.save_pretrained(part)
        write_bytes(part / WEIGHTS_FILE, save(tensors, metadata={"format": "pt"}))
        _check_fit(part, source)
        origin = Origin(file=source.name, sha256=_sha256(source), weights=weights_digest(part))
        write_text(part / ORIGIN_FILE, origin.model_dump_json(indent=2) + "\n")
    return origin


def read_state(source: Path) -> dict[str, Tensor]:
    """The learned tensors of a file by their names in mmdetection 2.x. No code of the file is run.

    Raises CheckpointError.
    """
    if not source.is_file():
        raise CheckpointError(f"{source} is missing: expected mmdetection's weights, a .pth file")
    content = read_pickle(source)
    state = content.get("state_dict", content) if isinstance(content, dict) else {}
    return {spelled_by_2x(name): value for name, value in state.items() if not is_ignored(name)}


def read_config(state: Mapping[str, Tensor], source: Path) -> Mask2FormerConfig:
    """The sizes that the tensors have. Raises CheckpointError naming one that is missing."""

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
        window_size=(round(size(tables[0]) ** 0.5) + 1)
        // 2,  # a table has a row for each of (2 * window - 1)^2 offsets
        mlp_ratio=size("backbone.stages.0.blocks.0.ffn.layers.0.0.weight") / width,
        out_features=[f"stage{stage + 1}" for stage in stages],
    )


def _depths(state: Mapping[str, Tensor]) -> list[int]:
    return [_count(state, f"backbone.stages.{stage}.blocks.") for stage in range(_count(state, "backbone.stages."))]


def _count(state: Mapping[str, Tensor], prefix: str) -> int:
    return len({name.removeprefix(prefix).split(".")[0] for name in state if name.startswith(prefix)})


def convert_tensors(state: Mapping[str, Tensor], config: Mask2FormerConfig, source: Path) -> dict[str, Tensor]:
    """By their names in transformers' files. Raises CheckpointError naming tensors that are missing or left over."""
    places = targets(config.backbone_config.depths, config.encoder_layers, config.decoder_layers - 1)
    _refuse(source, sorted(places.keys() - state.keys()), "missing")
    _refuse(source, sorted(state.keys() - places.keys()), "not part of a Mask2Former with Swin")
    tensors: dict[str, Tensor] = {}
    for name, names_to in places.items():
        value = reorder_merged(state[name]) if ".downsample." in name else state[name]
        tensors |= zip(names_to, (part.float().contiguous() for part in value.chunk(len(names_to))), strict=True)
    return tensors


def reorder_merged(merged: Tensor) -> Tensor:
    """A tensor over 2 x 2 merged patches (..., 4 * channels), from mmdetection's order to transformers'.

    mmdetection unfolds: channel by channel, in each the four patches row by row. transformers concatenates: patch by
    patch, column by column.
    """
    by_patch = merged.unflatten(-1, (-1, 4)).transpose(-1, -2)
    return by_patch[..., [0, 2, 1, 3], :].flatten(-2)


def _refuse(source: Path, names: list[str], what: str) -> None:
    if names:
        more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
        raise CheckpointError(f"{source}: tensors are {what}: {', '.join(names[:_NAMED])}{more}")


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
