"""Verifiers by name: of a known model, a folder with a verifier.json, a hub id, CLIPScore, or a function."""

import re
from pathlib import Path

import torch

from forejudge.errors import InvalidRequest
from forejudge.generators import find_spec, known_models
from forejudge.hub import fetch, is_hub_id
from forejudge.verifiers.base import Verifier

_CLIPSCORE = "clipscore:"
_SCORER_PATTERN = re.compile(rf"{_CLIPSCORE}.+|[A-Za-z_][\w.]*:\w+")


def load_verifier(name: str, device: torch.device, dtype: torch.dtype) -> Verifier:
    """Load the verifier of a known model, a folder or a hub id, also in the published layout; or a scorer of pictures.

    A hub id may be pinned, as `owner/model@REVISION`. A scorer is "clipscore:" with CLIP's folder or hub id, or a
    function, spelt "module:function", that takes a prompt and pictures and gives a score for each. Raises
    InvalidRequest for an unknown name, CheckpointError for a folder that is incomplete.
    """
    if not Path(name).exists() and _SCORER_PATTERN.fullmatch(name):
        return _load_image_scorer(name, device, dtype)
    spec = find_spec(name)
    source = spec.verifier if spec and spec.verifier else name
    if not Path(source).is_dir() and not is_hub_id(source):
        raise InvalidRequest(
            f"unknown verifier {name!r}: expected a folder that holds verifier.json, a hub id such as owner/model or "
            f"owner/model@revision, clipscore:FOLDER, module:function, or one of {', '.join(_known_verifiers())}"
        )
    from forejudge.verifiers.language_model import LanguageModelVerifier
    from forejudge.verifiers.published_format import PUBLISHED_FILES, is_published

    origin = fetch(source, PUBLISHED_FILES)
    if is_published(origin.folder):
        from forejudge.verifiers.published_import import PublishedSource, import_published

        return import_published(PublishedSource(origin), name, device, dtype).verifier
    return LanguageModelVerifier.from_pretrained(origin, name, device, dtype)


def _known_verifiers() -> list[str]:
    return [name for name, spec in known_models().items() if spec.verifier]


def _load_image_scorer(name: str, device: torch.device, dtype: torch.dtype) -> Verifier:
    from forejudge.verifiers.image_scores import ClipScore, ImageScoreVerifier

    if not name.startswith(_CLIPSCORE):
        return ImageScoreVerifier.from_import_path(name)
    score = ClipScore.from_pretrained(name.removeprefix(_CLIPSCORE), device, dtype)
    return ImageScoreVerifier(score, name, [score.model.visual_projection.weight, score.model.text_projection.weight])
