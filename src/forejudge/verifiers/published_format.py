"""Published layout of a verifier: config.json (LLaVA around Qwen2) and the files with mean and variance beside it."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
from pydantic import BaseModel, ConfigDict, Field, JsonValue
from torch import Tensor
from transformers import Qwen2Config

from forejudge.checkpoint import checkpoint_errors, ignore_transformers_deprecations, read_pickle
from forejudge.device import dtype_name
from forejudge.errors import CheckpointError
from forejudge.files import is_file
from forejudge.generators.base import Dimension
from forejudge.hub import MODEL_FILES
from forejudge.verifiers.config import CONFIG_FILE
from forejudge.verifiers.connector import StatisticsKind

PUBLISHED_CONFIG_FILE = "config.json"
PUBLISHED_FILES = (*MODEL_FILES, "*block_*_mean*.pt", "*block_*_variance*.pt")
"""Files fetched from a verifier's repository; only the statistics are pickled."""
HIDDEN = "hidden"  # replaces the name of a vision tower
_REWRITTEN_FIELDS = {"architectures", "model_type", "transformers_version", "dtype", "_name_or_path"}
_TRANSFORMERS_4_FIELDS = {"rope_theta", "rope_scaling"}
_KIND_SUFFIXES = {"channel": "", "token": "_token", "global": "_global"}
_DTYPE_SUFFIXES = {torch.float32: "fp32", torch.bfloat16: "bf16", torch.float16: "fp16"}

_Count = Annotated[int, Field(gt=0, le=2**10)]


class PublishedConfig(BaseModel):
    """Content of a published verifier's config.json: the input's fields, and the language model's fields as extras.

    Sizes of the language model have bounds here, since it is built before its tensors are compared with them. LLaVA's
    other ways to pass an image to the language model are refused: no published verifier uses them.
    """

    model_config = ConfigDict(frozen=True, extra="allow", protected_namespaces=(), allow_inf_nan=False)

    model_type: Literal["llava_qwen"]
    mm_projector_type: Literal["mlp2x_gelu"]
    mm_hidden_size: Dimension
    mm_vision_tower: str
    mm_vision_select_feature: Annotated[str, Field(pattern=r"^(block_\d{1,4}|patch)$")] = "patch"
    mm_vision_select_layer: Literal[-2] = -2
    mm_vision_normalize: bool = True
    mm_patch_merge_type: Literal["flat"] = "flat"
    mm_use_im_start_end: Literal[False] = False
    mm_use_im_patch_token: Literal[False] = False
    tie_word_embeddings: bool = False
    vocab_size: Annotated[int, Field(gt=0, le=2**24)]
    hidden_size: Dimension = 896
    intermediate_size: Dimension = 4864
    num_hidden_layers: _Count = 24
    num_attention_heads: _Count = 14
    num_key_value_heads: _Count = 2
    max_position_embeddings: Annotated[int, Field(gt=0, le=2**31)] = 32768
    rms_norm_eps: Annotated[float, Field(gt=0, le=1)] = 1e-6
    rope_theta: Annotated[float, Field(gt=0, le=1e12)] = 1e6

    @property
    def block(self) -> int | None:
        """Index of the block whose output is read, from 0; None for a verifier that reads CLIP features."""
        feature, _, block = self.mm_vision_select_feature.partition("_")
        return int(block) if feature == "block" else None

    @property
    def reads(self) -> str:
        """Name of the verifier input: hidden:K or clip. Raises CheckpointError for hidden states without a block."""
        if self.block is not None:
            return f"hidden:{self.block + 1}"
        if self.mm_vision_tower.startswith(HIDDEN):
            raise CheckpointError(
                f"mm_vision_tower = {self.mm_vision_tower} with mm_vision_select_feature = "
                f"{self.mm_vision_select_feature}: expected block_K"
            )
        return "clip"

    def to_dict(self) -> dict[str, JsonValue]:
        """Return the fields that the file holds."""
        return self.model_dump(exclude_unset=True)

    def language_model_config(self, vocab_size: int) -> Qwen2Config:
        """Return the language model's config with a vocabulary of `vocab_size` rows."""
        fields = (Qwen2Config().to_dict().keys() | _TRANSFORMERS_4_FIELDS) - _REWRITTEN_FIELDS
        values = {name: value for name, value in self.to_dict().items() if name in fields}
        with ignore_transformers_deprecations():
            return Qwen2Config(**values | {"vocab_size": vocab_size})


def is_published(folder: Path) -> bool:
    """Tell whether a folder holds a verifier in the published layout but not one in our layout."""
    path = folder / PUBLISHED_CONFIG_FILE
    if is_file(folder / CONFIG_FILE) or not is_file(path):
        return False
    with checkpoint_errors(path):
        return any(name.startswith("mm_") for name in json.loads(path.read_text(encoding="utf-8")))


def published_language_model_config(config: Qwen2Config) -> dict[str, Any]:
    """Return a language model's config.json fields under their transformers 4 names."""
    values = {name: value for name, value in config.to_diff_dict().items() if name not in _REWRITTEN_FIELDS}
    rope = dict(values.pop("rope_parameters", config.rope_parameters))
    theta, kind = rope.pop("rope_theta"), rope.pop("rope_type")
    return values | {"rope_theta": theta, "rope_scaling": None if kind == "default" else {"rope_type": kind, **rope}}


@dataclass(frozen=True)
class Statistics:
    """Mean and variance per channel (D,), per token (T, 1) or over all values (1,), in the shapes of `Standardizer`."""

    kind: StatisticsKind
    mean_D: Tensor
    variance_D: Tensor

    @property
    def tokens(self) -> int | None:
        """Number of tokens T for per-token statistics, else None."""
        return len(self.mean_D) if self.kind == "token" else None

    def __str__(self) -> str:
        granularity = {"channel": "each channel", "token": f"each of {self.tokens} tokens"}.get(self.kind, "all values")
        return f"statistics of {granularity} in {dtype_name(self.mean_D.dtype)}"


def find_statistics(folder: Path, block: int) -> tuple[Path, Path]:
    """Find a block's mean and variance files in a folder. Raises CheckpointError unless there is exactly one pair."""
    means, variances = (sorted(folder.rglob(f"block_{block}_{name}*.pt")) for name in ("mean", "variance"))
    if len(means) != 1 or len(variances) != 1:
        contents = ", ".join(str(path.relative_to(folder)) for path in [*means, *variances])
        raise CheckpointError(
            f"{folder} holds {contents or 'no statistics'}, expected one block_{block}_mean*.pt and one "
            f"block_{block}_variance*.pt"
        )
    return means[0], variances[0]


def read_statistics(paths: tuple[Path, Path], width: int, tokens: int | None = None) -> Statistics:
    """Read tensors of shape (1, width), (tokens,) or (1,) in their own dtype; `tokens` = None accepts any number.

    Raises CheckpointError for another or an ambiguous shape, and for values that are not finite or not a variance.
    """
    mean, variance = (_tensor(path) for path in paths)
    kind = _kind(paths[0], tuple(mean.shape), width, tokens)
    if variance.shape != mean.shape:
        raise CheckpointError(
            f"{paths[1]} has shape {tuple(variance.shape)}, {paths[0]} has {tuple(mean.shape)}: expected the same"
        )
    if (variance < 0).any():
        raise CheckpointError(f"{paths[1]} holds negative values: expected variances")
    shape = {"channel": (width,), "token": (-1, 1), "global": (1,)}[kind]
    return Statistics(kind, mean.reshape(shape), variance.reshape(shape))


def write_statistics(statistics: Statistics, folder: Path, block: int) -> None:
    """Write the two files that `read_statistics` reads, under their published names."""
    shape = {"channel": (1, -1), "token": (-1,), "global": (1,)}[statistics.kind]
    file_suffix = _KIND_SUFFIXES[statistics.kind] + "_" + _DTYPE_SUFFIXES[statistics.mean_D.dtype]
    for name, tensor in (("mean", statistics.mean_D), ("variance", statistics.variance_D)):
        torch.save(tensor.reshape(shape).clone(), folder / f"block_{block}_{name}{file_suffix}.pt")


def _tensor(path: Path) -> Tensor:
    contents = read_pickle(path)
    if not isinstance(contents, Tensor) or contents.dtype not in _DTYPE_SUFFIXES or not contents.isfinite().all():
        raise CheckpointError(f"{path} is not a statistic: expected a tensor of finite floating-point numbers")
    return contents


def _kind(path: Path, shape: tuple[int, ...], width: int, tokens: int | None) -> StatisticsKind:
    if shape == (1,):
        return "global"
    if shape == (1, width):
        return "channel"
    if shape == (width,) and tokens in (None, width):
        raise CheckpointError(
            f"{path} has shape ({width},), which may mean channels or tokens: save channels as (1, {width})"
        )
    if len(shape) == 1 and tokens in (None, *shape):
        return "token"
    raise CheckpointError(
        f"{path} has shape {shape}, expected (1, {width}) for each channel, ({tokens or 'T'},) for each token or (1,) "
        "for all values"
    )
