"""Where each tensor of mmdetection's Mask2Former with a Swin backbone goes in transformers' one.

mmdetection 2.x numbers the attentions and feed-forward parts of a layer, 3.x names them; both spellings are read. The
names on the right are those of transformers' files, from which each of its versions finds its own.
"""

import re
from collections.abc import Iterator, Mapping, Sequence

_BACKBONE, _BACKBONE_TO = "backbone", "model.pixel_level_module.encoder"
_PIXELS, _PIXELS_TO = "panoptic_head.pixel_decoder", "model.pixel_level_module.decoder"
_QUERIES, _QUERIES_TO = "panoptic_head.transformer_decoder", "model.transformer_module.decoder"

# Window indices follow from the window's size, and a model makes them itself.
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


def spelled_by_2x(name: str) -> str:
    """A tensor's name as mmdetection 2.x spells it, from either spelling."""
    for pattern, replacement in _SPELLED_BY_3X:
        name = pattern.sub(replacement, name)
    return name


def is_ignored(name: str) -> bool:
    """Whether a tensor is none that was learned."""
    return _IGNORED.search(name) is not None


def targets(depths: Sequence[int], pixel_layers: int, query_layers: int) -> dict[str, tuple[str, ...]]:
    """By each name in the spelling of 2.x those in transformers: three for a fused query, key and value, else one.

    `depths` are the blocks of the backbone's stages, the others the layers of pixel and query decoder.
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
