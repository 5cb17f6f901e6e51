"""Which generator a verifier was made for, where it does not say so itself: read off configs, without any weights."""

from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from forejudge.checkpoint import named_file, read_config
from forejudge.errors import InvalidRequest
from forejudge.generators import KNOWN_MODELS
from forejudge.generators.base import Architecture

SANA_SPRINT_1_6B = Architecture(
    transformer="SanaTransformer2DModel",
    width=2240,
    num_blocks=20,
    latent_channels=32,
    latent_size=32,
    text_width=2304,
)
_TRANSFORMER_CONFIG = "transformer/config.json"


class _SanaConfig(BaseModel):
    model_config = ConfigDict(frozen=True)

    transformer: Literal["SanaTransformer2DModel"] = Field(alias="_class_name")
    num_attention_heads: int
    attention_head_dim: int
    num_layers: int
    in_channels: int
    sample_size: int
    caption_channels: int


def architecture_named(name: str) -> Architecture:
    """The architecture of a known generator, a pipeline's folder or a hub id.

    Raises InvalidRequest for a name that is none of them, CheckpointError for a pipeline that is not SANA-Sprint.
    """
    known = KNOWN_MODELS.get(name)
    config = read_config(_config_file(known.generator if known else name), _SanaConfig)
    return Architecture(
        transformer=config.transformer,
        width=config.num_attention_heads * config.attention_head_dim,
        num_blocks=config.num_layers,
        latent_channels=config.in_channels,
        latent_size=config.sample_size,
        text_width=config.caption_channels,
    )


def _config_file(source: str) -> Path:
    if Path(source).is_dir():
        return Path(source) / _TRANSFORMER_CONFIG
    if source.count("/") != 1 or source.startswith((".", "/")):
        raise InvalidRequest(
            f"unknown generator {source!r}: expected a folder, a hub id such as owner/model, or one of "
            f"{', '.join(KNOWN_MODELS)}"
        )
    from huggingface_hub import hf_hub_download

    with named_file(Path(source)):
        return Path(hf_hub_download(source, _TRANSFORMER_CONFIG))
