"""Generators by name. A folder or hub id is read for the class of its pipeline, which decides who loads it."""

import importlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from forejudge.checkpoint import named_file
from forejudge.errors import CheckpointError, InvalidRequest
from forejudge.generators.base import Generator

_MINIATURE_WEIGHTS = Path(__file__).parents[1] / "miniature" / "weights"


@dataclass(frozen=True)
class KnownModel:
    """A generator that has a short name, and the verifier that goes with it."""

    generator: str
    verifier: str | None
    description: str


KNOWN_MODELS: dict[str, KnownModel] = {
    "miniature": KnownModel(
        str(_MINIATURE_WEIGHTS / "generator"),
        str(_MINIATURE_WEIGHTS / "verifier"),
        "a small SANA-Sprint that draws coloured shapes at 64 px; ships with forejudge",
    ),
}

# Class of a diffusers pipeline -> the module and class that split it.
ARCHITECTURES: dict[str, tuple[str, str]] = {
    "SanaSprintPipeline": ("forejudge.generators.sana_sprint", "SanaSprint"),
}


def as_generator(pipeline: Any, name: str = "a pipeline given by the caller") -> Generator:
    """Wrap a diffusers pipeline, which stays as it is. Raises InvalidRequest for a class that is not supported."""
    kind = type(pipeline).__name__
    if kind not in ARCHITECTURES:
        raise InvalidRequest(f"{kind} is not supported; supported are {', '.join(ARCHITECTURES)}")
    module, class_name = ARCHITECTURES[kind]
    generator: Generator = getattr(importlib.import_module(module), class_name)(pipeline, name)
    return generator


def load_generator(name: str, device: torch.device, dtype: torch.dtype) -> Generator:
    """Load a known model, a folder or a hub id.

    Raises CheckpointError for a folder that is incomplete, InvalidRequest for a pipeline that is not supported.
    """
    known = KNOWN_MODELS.get(name)
    source = known.generator if known else name
    folder = Path(source)
    if folder.exists():
        _check_folder(folder)
    elif source.count("/") != 1:
        raise InvalidRequest(
            f"unknown generator {name!r}: expected a folder, a hub id such as owner/model, or one of "
            f"{', '.join(KNOWN_MODELS)}"
        )
    return as_generator(_load_pipeline(source, device, dtype), name)


def _load_pipeline(source: str, device: torch.device, dtype: torch.dtype) -> Any:
    from diffusers import DiffusionPipeline
    from diffusers.utils import logging

    logging.disable_progress_bar()
    with named_file(Path(source)):
        pipeline = DiffusionPipeline.from_pretrained(source, dtype=dtype, use_safetensors=True)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline.to(device)


def _check_folder(folder: Path) -> None:
    index = folder / "model_index.json"
    if not index.is_file():
        raise CheckpointError(f"{folder} holds no model_index.json: expected a folder saved by a diffusers pipeline")
    with named_file(index):
        kind = json.loads(index.read_text())["_class_name"]
    if kind not in ARCHITECTURES:
        raise InvalidRequest(f"{folder} holds a {kind}; supported are {', '.join(ARCHITECTURES)}")
