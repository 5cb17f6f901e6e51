"""The config.json of a verifier in its published layout, LLaVA's around Qwen2, and the language model's part of it."""

import json
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, JsonValue, PositiveInt
from transformers import Qwen2Config

from forejudge.errors import CheckpointError
from forejudge.library_calls import named_file, renamed_in_transformers
from forejudge.verifiers.verifier_config import CONFIG_FILE

PUBLISHED_CONFIG_FILE = "config.json"
HIDDEN = "hidden"  # in the place of a vision tower's name
_WRITTEN_ANEW = {"architectures", "model_type", "transformers_version", "dtype", "_name_or_path"}
_OF_TRANSFORMERS_4 = {"rope_theta", "rope_scaling"}


class PublishedConfig(BaseModel):
    """What the published layout says of what a verifier reads; the language model's own fields stand beside it.

    Ways to put a picture before the language model that no published verifier takes are refused.
    """

    model_config = ConfigDict(frozen=True, extra="allow", protected_namespaces=())

    model_type: Literal["llava_qwen"]
    mm_projector_type: Literal["mlp2x_gelu"]
    mm_hidden_size: PositiveInt
    mm_vision_tower: str
    mm_vision_select_feature: Annotated[str, Field(pattern=r"^(block_\d+|patch)$")] = "patch"
    mm_vision_select_layer: Literal[-2] = -2
    mm_vision_normalize: bool = True
    mm_patch_merge_type: Literal["flat"] = "flat"
    mm_use_im_start_end: Literal[False] = False
    mm_use_im_patch_token: Literal[False] = False
    tie_word_embeddings: bool = False
    vocab_size: PositiveInt

    @property
    def block(self) -> int | None:
        """The block whose output is read, counted from 0; None for a verifier that reads CLIP."""
        feature, _, block = self.mm_vision_select_feature.partition("_")
        return int(block) if feature == "block" else None

    @property
    def reads(self) -> str:
        """See `reading_named`. Raises CheckpointError for hidden states of no block."""
        if self.block is not None:
            return f"hidden:{self.block + 1}"
        if self.mm_vision_tower.startswith(HIDDEN):
            raise CheckpointError(
                f"mm_vision_tower = {self.mm_vision_tower} with mm_vision_select_feature = "
                f"{self.mm_vision_select_feature}: expected block_K"
            )
        return "clip"

    def described(self) -> dict[str, JsonValue]:
        """The file as it was read."""
        return self.model_dump(exclude_unset=True)

    def language_model(self, vocabulary: int) -> Qwen2Config:
        """The language model's config, its vocabulary of so many rows."""
        fields = (Qwen2Config().to_dict().keys() | _OF_TRANSFORMERS_4) - _WRITTEN_ANEW
        own = {name: value for name, value in self.described().items() if name in fields}
        with renamed_in_transformers():
            return Qwen2Config(**own | {"vocab_size": vocabulary})


def is_published(folder: Path) -> bool:
    """Whether a folder holds a config.json of LLaVA's kind, and no verifier of ours."""
    path = folder / PUBLISHED_CONFIG_FILE
    if (folder / CONFIG_FILE).is_file() or not path.is_file():
        return False
    with named_file(path):
        return any(name.startswith("mm_") for name in json.loads(path.read_text(encoding="utf-8")))


def described_language_model(config: Qwen2Config) -> dict[str, Any]:
    """What the published layout says of a language model, in the words of transformers 4."""
    own = {name: value for name, value in config.to_diff_dict().items() if name not in _WRITTEN_ANEW}
    rope = dict(own.pop("rope_parameters", config.rope_parameters))
    theta, kind = rope.pop("rope_theta"), rope.pop("rope_type")
    return own | {"rope_theta": theta, "rope_scaling": None if kind == "default" else {"rope_type": kind, **rope}}
