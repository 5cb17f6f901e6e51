"""An untrained Mask2Former, small enough to be made in a second, and its weights as mmdetection would write them."""

import re
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor
from transformers import Mask2FormerConfig, SwinConfig

from forejudge.evaluators.detector import CLASS_NAMES, Mask2Former

# From transformers' names to those of mmdetection 2.x, the first that fits.
_RENAMED = [
    (r"^model\.pixel_level_module\.encoder\.embeddings\.patch_embeddings\.", "backbone.patch_embed."),
    (r"^model\.pixel_level_module\.encoder\.embeddings\.norm\.", "backbone.patch_embed.norm."),
    (r"^model\.pixel_level_module\.encoder\.hidden_states_norms\.stage1\.", "backbone.norm0."),
    (r"^model\.pixel_level_module\.encoder\.hidden_states_norms\.stage2\.", "backbone.norm1."),
    (r"^model\.pixel_level_module\.encoder\.hidden_states_norms\.stage3\.", "backbone.norm2."),
    (r"^model\.pixel_level_module\.encoder\.hidden_states_norms\.stage4\.", "backbone.norm3."),
    (r"^model\.pixel_level_module\.encoder\.encoder\.layers\.", "backbone.stages."),
    (r"^model\.pixel_level_module\.decoder\.level_embed$", "panoptic_head.pixel_decoder.level_encoding.weight"),
    (r"^model\.pixel_level_module\.decoder\.", "panoptic_head.pixel_decoder."),
    (r"^model\.transformer_module\.decoder\.mask_predictor\.mask_embedder\.0\.0\.", "panoptic_head.mask_embed.0."),
    (r"^model\.transformer_module\.decoder\.mask_predictor\.mask_embedder\.1\.0\.", "panoptic_head.mask_embed.2."),
    (r"^model\.transformer_module\.decoder\.mask_predictor\.mask_embedder\.2\.0\.", "panoptic_head.mask_embed.4."),
    (r"^model\.transformer_module\.decoder\.layernorm\.", "panoptic_head.transformer_decoder.post_norm."),
    (r"^model\.transformer_module\.decoder\.", "panoptic_head.transformer_decoder."),
    (r"^model\.transformer_module\.queries_embedder\.", "panoptic_head.query_embed."),
    (r"^model\.transformer_module\.queries_features\.", "panoptic_head.query_feat."),
    (r"^model\.transformer_module\.level_embed\.", "panoptic_head.level_embed."),
    (r"^class_predictor\.", "panoptic_head.cls_embed."),
]
_IN_BACKBONE = [
    (r"\.layernorm_before\.", ".norm1."),
    (r"\.layernorm_after\.", ".norm2."),
    (r"\.attention\.self\.relative", ".attn.w_msa.relative"),
    (r"\.attention\.output\.dense\.", ".attn.w_msa.proj."),
    (r"\.intermediate\.dense\.", ".ffn.layers.0.0."),
    (r"\.output\.dense\.", ".ffn.layers.1."),
]
_IN_PIXEL_DECODER = [
    (r"\.input_projections\.(\d)\.0\.", r".input_convs.\1.conv."),
    (r"\.input_projections\.(\d)\.1\.", r".input_convs.\1.gn."),
    (r"\.adapter_1\.0\.", ".lateral_convs.0.conv."),
    (r"\.adapter_1\.1\.", ".lateral_convs.0.gn."),
    (r"\.layer_1\.0\.", ".output_convs.0.conv."),
    (r"\.layer_1\.1\.", ".output_convs.0.gn."),
    (r"\.mask_projection\.", ".mask_feature."),
    (r"\.self_attn_layer_norm\.", ".norms.0."),
    (r"\.final_layer_norm\.", ".norms.1."),
    (r"\.self_attn\.", ".attentions.0."),
]
_IN_QUERY_DECODER = [
    (r"\.cross_attn_layer_norm\.", ".norms.0."),
    (r"\.self_attn_layer_norm\.", ".norms.1."),
    (r"\.final_layer_norm\.", ".norms.2."),
    (r"\.cross_attn\.", ".attentions.0.attn."),
    (r"\.self_attn\.", ".attentions.1.attn."),
]
_FEED_FORWARD = [(r"\.fc1\.", ".ffns.0.layers.0.0."), (r"\.fc2\.", ".ffns.0.layers.1.")]


def tiny_config() -> Mask2FormerConfig:
    """As GenEval's detector, with other sizes."""
    backbone = SwinConfig(
        embed_dim=8,
        depths=[1, 1, 2, 1],
        num_heads=[1, 2, 2, 4],
        window_size=3,
        mlp_ratio=2.0,
        out_features=[f"stage{stage}" for stage in (1, 2, 3, 4)],
    )
    return Mask2FormerConfig(
        backbone_config=backbone,
        feature_size=32,
        mask_feature_size=16,
        hidden_dim=32,
        encoder_feedforward_dim=48,
        dim_feedforward=40,
        encoder_layers=2,
        decoder_layers=5,
        num_attention_heads=4,
        num_queries=6,
        num_labels=len(CLASS_NAMES),
    )


def tiny_mask2former(seed: int = 0) -> Mask2Former:
    """Every weight drawn, so that none can be left out unseen."""
    torch.manual_seed(seed)
    model = Mask2Former(tiny_config()).eval()
    with torch.no_grad():
        for weight in model.parameters():
            weight.normal_(std=0.2 if weight.dim() > 1 else 0.5)
    return model


def to_mmdetection_state_dict(model: Mask2Former, folder: Path) -> dict[str, Tensor]:
    """The state dict of mmdetection 2.x with the same weights; `folder` is for transformers' own names of them."""
    model.save_pretrained(folder)
    tensors = load_file(folder / "model.safetensors")
    state: dict[str, Tensor] = {}
    for name, value in tensors.items():
        if ".swin.layernorm." in name:  # which no output goes through
            continue
        state[_rename(name)] = _unfold(value) if ".downsample." in name else value
    _fuse(state, r"(backbone.*)\.attention\.self\.query\.(\w+)$", ("query", "key", "value"), r"\1.attn.w_msa.qkv.\2")
    _fuse(state, r"(panoptic.*\.attentions\.1\.attn)\.q_proj\.(\w+)$", ("q", "k", "v"), r"\1.in_proj_\2")
    for name in [name for name in state if name.endswith("relative_position_bias_table")]:
        state[name.replace("bias_table", "index")] = mmdetection_window_index(3)
    return state


def mmdetection_window_index(side: int) -> Tensor:
    """`WindowMSA.relative_position_index`: sums of steps, flipped."""
    steps = torch.arange(0, (2 * side - 1) * side, 2 * side - 1)[:, None] + torch.arange(side)[None]
    return (steps.reshape(1, -1) + steps.reshape(-1, 1)).flip(1)


def _rename(name: str) -> str:
    to = next(re.sub(old, new, name) for old, new in _RENAMED if re.search(old, name))
    if to.startswith("backbone"):
        more = _IN_BACKBONE
    else:
        more = [*(_IN_PIXEL_DECODER if "pixel_decoder" in to else _IN_QUERY_DECODER), *_FEED_FORWARD]
    for old, new in more:
        to = re.sub(old, new, to)
    return to


def _unfold(value: Tensor) -> Tensor:
    """From transformers' order of merged patches: the tensor is laid out on a grid, which is then unfolded."""
    patches = value.unflatten(-1, (4, -1))
    grid = torch.stack([torch.stack([patches[..., 0, :], patches[..., 2, :]], -2), patches[..., 1::2, :]], -3)
    return grid.movedim(-1, -3).flatten(-3)  # channel, row, column


def _fuse(state: dict[str, Tensor], first: str, parts: tuple[str, str, str], to: str) -> None:
    for name in [name for name in state if re.search(first, name)]:
        each = [re.sub(rf"\.{parts[0]}(?=[._])", f".{part}", name) for part in parts]
        state[re.sub(first, to, name)] = torch.cat([state.pop(part) for part in each])
