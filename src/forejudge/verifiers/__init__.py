"""Verifiers by name: that of a known model, a folder with a verifier.json, or a hub id."""

from pathlib import Path

import torch

from forejudge.checkpoint import local_folder
from forejudge.errors import InvalidRequest
from forejudge.generators import KNOWN_MODELS
from forejudge.verifiers.base import Verifier


def load_verifier(name: str, device: torch.device, dtype: torch.dtype) -> Verifier:
    """Load the verifier of a known model, a folder or a hub id.

    Raises InvalidRequest for an unknown name, CheckpointError for a folder that is incomplete.
    """
    known = KNOWN_MODELS.get(name)
    source = known.verifier if known and known.verifier else name
    if not Path(source).is_dir() and source.count("/") != 1:
        raise InvalidRequest(
            f"unknown verifier {name!r}: expected a folder that holds verifier.json, a hub id such as owner/model, or "
            f"one of {', '.join(KNOWN_MODELS)}"
        )
    from forejudge.verifiers.language_model import LanguageModelVerifier

    return LanguageModelVerifier.from_pretrained(local_folder(source), name, device, dtype)
