"""Verifiers by name: of a known model, a folder with a verifier.json, a hub id, CLIPScore, or a function."""

import re
from pathlib import Path

import torch

from forejudge.checkpoint import local_folder
from forejudge.errors import InvalidRequest
from forejudge.generators import KNOWN_MODELS
from forejudge.verifiers.base import Verifier

_CLIPSCORE = "clipscore:"
_SCORES = re.compile(rf"{_CLIPSCORE}.+|[A-Za-z_][\w.]*:\w+")


def load_verifier(name: str, device: torch.device, dtype: torch.dtype) -> Verifier:
    """Load the verifier of a known model, a folder or a hub id, also in the published layout; or a scorer of pictures.

    That is "clipscore:" with CLIP's folder or hub id, or a function, spelt "module:function", that takes a prompt and
    pictures and gives a score for each. Raises InvalidRequest for an unknown name, CheckpointError for a folder that is
    incomplete.
    """
    if not Path(name).exists() and _SCORES.fullmatch(name):
        return _picture_scores(name, device, dtype)
    known = KNOWN_MODELS.get(name)
    source = known.verifier if known and known.verifier else name
    if not Path(source).is_dir() and source.count("/") != 1:
        raise InvalidRequest(
            f"unknown verifier {name!r}: expected a folder that holds verifier.json, a hub id such as owner/model, "
            f"clipscore:FOLDER, module:function, or one of {', '.join(KNOWN_MODELS)}"
        )
    from forejudge.verifiers.language_model import LanguageModelVerifier
    from forejudge.verifiers.published import import_published
    from forejudge.verifiers.published_config import is_published
    from forejudge.verifiers.published_source import PublishedSource
    from forejudge.verifiers.published_statistics import STATISTICS_PATTERNS

    folder = local_folder(source, STATISTICS_PATTERNS)
    if is_published(folder):
        return import_published(PublishedSource(folder, name), device, dtype).verifier
    return LanguageModelVerifier.from_pretrained(folder, name, device, dtype)


def _picture_scores(name: str, device: torch.device, dtype: torch.dtype) -> Verifier:
    from forejudge.verifiers.picture_scores import ClipScore, PictureScoreVerifier

    if not name.startswith(_CLIPSCORE):
        return PictureScoreVerifier.imported(name)
    score = ClipScore.from_pretrained(name.removeprefix(_CLIPSCORE), device, dtype)
    return PictureScoreVerifier(score, name, [score.model.visual_projection.weight, score.model.text_projection.weight])
