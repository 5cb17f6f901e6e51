"""Verifiers by name: that of a known model, or a folder with a verifier.json."""

from pathlib import Path

import torch

from forejudge.errors import InvalidRequest
from forejudge.generators import KNOWN_MODELS
from forejudge.verifiers.base import Verifier


def load_verifier(name: str, device: torch.device, dtype: torch.dtype) -> Verifier:
    """Load the verifier of a known model, or a folder.

    Raises InvalidRequest for an unknown name, CheckpointError for a folder that is incomplete.
    """
    known = KNOWN_MODELS.get(name)
    folder = Path(known.verifier if known and known.verifier else name)
    if not folder.is_dir():
        raise InvalidRequest(
            f"unknown verifier {name!r}: expected a folder that holds verifier.json, or one of "
            f"{', '.join(KNOWN_MODELS)}"
        )
    from forejudge.verifiers.hidden_state import HiddenStateVerifier

    return HiddenStateVerifier.from_pretrained(folder, name, device, dtype)
