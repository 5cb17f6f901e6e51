"""Verifiers by name: a known model's, a folder with a verifier.json, a hub id, CLIPScore, or a function."""

from pathlib import Path

import torch
from pydantic import BaseModel

from forejudge.config_files import read_config
from forejudge.errors import CheckpointError, InvalidRequest
from forejudge.files import exists, is_dir
from forejudge.generators import find_spec, known_models
from forejudge.generators.base import Architecture
from forejudge.hub import fetch, is_hub_id
from forejudge.plugins import is_import_path, load_object, registered
from forejudge.verifiers.base import PretrainedVerifier, Verifier
from forejudge.verifiers.config import CONFIG_FILE, VerifierConfig

# `kind` in verifier.json -> the class that loads the folder, by import path: its libraries take seconds to import.
VERIFIER_CLASSES: dict[str, str] = {
    "language_model": "forejudge.verifiers.language_model:LanguageModelVerifier",
    "cross_attention": "forejudge.verifiers.cross_attention:CrossAttentionVerifier",
}
_CLIPSCORE = "clipscore:"


def load_verifier(name: str, device: torch.device, dtype: torch.dtype) -> Verifier:
    """Load the verifier of a known model, a folder or a hub id, also in the published layout, or an image scorer.

    A hub id may name a revision, as `owner/model@REVISION`. A scorer is "clipscore:" and a CLIP's folder or hub id, or
    "module:function" for a function that takes a prompt and images and returns one score per image.

    Raises InvalidRequest for an unknown name, CheckpointError for a folder that is incomplete.
    """
    if _names_image_scorer(name):
        return _load_image_scorer(name, device, dtype)
    source = _find_source(name)
    from forejudge.verifiers.published_format import PUBLISHED_FILES, is_published

    origin = fetch(source, PUBLISHED_FILES)
    if is_published(origin.folder):
        from forejudge.verifiers.published_import import PublishedSource, import_published

        return import_published(PublishedSource(origin), name, device, dtype).verifier
    _refuse_aligned(origin.folder)
    return find_verifier_class(origin.folder).from_pretrained(origin, name, device, dtype)


def check_verifier(name: str, generator: str, architecture: Architecture) -> None:
    """Refuse what `load_verifier` would refuse, or a generator whose architecture does not fit, in a moment.

    Only folders of ours are read; what has to be downloaded is checked when it is loaded. Raises InvalidRequest,
    CheckpointError, and MismatchError for a generator of another architecture.
    """
    if _names_image_scorer(name):
        return
    from forejudge.verifiers.published_format import is_published

    folder = Path(_find_source(name))
    if not is_dir(folder) or is_published(folder):
        return
    _refuse_aligned(folder)
    read_verifier_config(folder).check(architecture, generator, name)


def _names_image_scorer(name: str) -> bool:
    return not exists(name) and (name.startswith(_CLIPSCORE) or is_import_path(name))


def _find_source(name: str) -> str:
    """Return a verifier's folder or hub id. Raises InvalidRequest for an unknown name."""
    spec, others = find_spec(name), registered(lambda plugin: plugin.verifiers)
    source = spec.verifier if spec and spec.verifier else others.get(name, name)
    if not is_dir(source) and not is_hub_id(source):
        known = ", ".join([*(name for name, spec in known_models().items() if spec.verifier), *others])
        raise InvalidRequest(
            f"unknown verifier {name!r}: expected a folder that holds verifier.json, a hub id such as owner/model or "
            f"owner/model@revision, clipscore:FOLDER, module:function, or one of {known}"
        )
    return source


def _refuse_aligned(folder: Path) -> None:
    if getattr(read_verifier_config(folder), "stage", None) == "align":
        raise InvalidRequest(
            f"{folder} is an aligned connector (stage 1), which was not trained to answer yet: train stage 2 with "
            f"forejudge train verify --aligned {folder}"
        )


def read_verifier_config(folder: Path) -> VerifierConfig:
    """Read the verifier.json in a folder, whatever its kind. Raises CheckpointError."""
    return read_config(folder / CONFIG_FILE, find_verifier_class(folder).config_class)


def find_verifier_class(folder: Path) -> type[PretrainedVerifier]:
    """Return the class of the verifier in a folder. Raises CheckpointError naming the known kinds."""
    kind = read_config(folder / CONFIG_FILE, _Kind).kind
    if kind not in VERIFIER_CLASSES:
        raise CheckpointError(
            f"{folder / CONFIG_FILE}: kind = {kind!r} is unknown, expected {' or '.join(VERIFIER_CLASSES)}"
        )
    verifier_class: type[PretrainedVerifier] = load_object(VERIFIER_CLASSES[kind], "verifier class")
    return verifier_class


class _Kind(BaseModel):
    """The one field of verifier.json that says how to read the others."""

    kind: str


def _load_image_scorer(name: str, device: torch.device, dtype: torch.dtype) -> Verifier:
    from forejudge.verifiers.image_scores import ClipScore, ImageScoreVerifier

    if not name.startswith(_CLIPSCORE):
        return ImageScoreVerifier(load_object(name, "verifier"), name)
    score = ClipScore.from_pretrained(name.removeprefix(_CLIPSCORE), device, dtype)
    return ImageScoreVerifier(score, name, score.model.state_dict())
