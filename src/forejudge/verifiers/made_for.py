"""Which generator a verifier was made for, where it does not say so itself: read off configs, without any weights."""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from forejudge.checkpoint import read_config
from forejudge.generators import find_spec
from forejudge.generators.base import Architecture
from forejudge.generators.sana_sprint import architecture_of
from forejudge.generators.spelling import split_options
from forejudge.hub import fetch

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
    """The architecture of a known generator, a pipeline's folder or a hub id, of which nothing else is fetched.

    Raises CheckpointError for a name that is none of them, and for a pipeline that is not SANA-Sprint.
    """
    spec = find_spec(name)
    folder = fetch(spec.pipeline if spec else split_options(name)[0], [_TRANSFORMER_CONFIG]).folder
    config = read_config(folder / _TRANSFORMER_CONFIG, _SanaConfig)
    return architecture_of(config.transformer, config)
