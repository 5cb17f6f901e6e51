"""What the published verifiers' own loader does to a vocabulary without an unknown token."""

import math
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

INPUT_EMBEDDINGS, OUTPUT_EMBEDDINGS = "model.embed_tokens.weight", "lm_head.weight"
_UNKNOWN = "[UNK]"
_ROWS_UNIT = 64
_LEFT_ALONE = ("qwen", "gemma")


def keeps_its_vocabulary(model: str) -> bool:
    """Whether that loader leaves a model alone, which it decides by the name: a hub id, or a folder's last part."""
    name = Path(model).resolve().name if Path(model).is_dir() else model
    return any(word in name.lower() for word in _LEFT_ALONE)


def add_unknown_token(
    tokenizer: PreTrainedTokenizerBase, tensors: Mapping[str, Tensor]
) -> tuple[int, dict[str, Tensor]]:
    """Rows of the vocabulary, and the tensors with embeddings of so many rows, the last one the mean of all others.

    Adds the token to the tokenizer. The rows are the next multiple of 64 from its length on; embeddings become float32,
    so that the mean, which that loader takes in the dtype in use, is rounded only when it is used.
    """
    added = tokenizer.add_special_tokens({"unk_token": _UNKNOWN})
    rows = math.ceil(len(tokenizer) / _ROWS_UNIT) * _ROWS_UNIT
    resized = {
        name: _resized(tensors[name], rows, added) for name in (INPUT_EMBEDDINGS, OUTPUT_EMBEDDINGS) if name in tensors
    }
    return rows, {**tensors, **resized}


def _resized(weight_VE: Tensor, rows: int, added: int) -> Tensor:
    kept_VE = weight_VE[: rows - added].float()
    return torch.cat([kept_VE, kept_VE.mean(0).expand(rows - len(kept_VE), -1)])
