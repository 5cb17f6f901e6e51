"""Generators by name. A folder or hub id is read for the class of its pipeline, which decides who loads it."""

import importlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from forejudge.checkpoint import load_library_model, load_tokenizer, named_file, quiet_libraries
from forejudge.errors import CheckpointError, InvalidRequest
from forejudge.generators.base import Generator
from forejudge.generators.spelling import split_options

if TYPE_CHECKING:
    from forejudge.generators.stepwise import StepwiseGenerator

_MINIATURE_WEIGHTS = Path(__file__).parents[1] / "miniature" / "weights"


@dataclass(frozen=True)
class KnownModel:
    """A generator that has a short name, with the verifier that goes with it and the language model of that."""

    generator: str
    verifier: str | None
    language_model: str | None
    description: str


KNOWN_MODELS: dict[str, KnownModel] = {
    "miniature": KnownModel(
        str(_MINIATURE_WEIGHTS / "generator"),
        str(_MINIATURE_WEIGHTS / "verifier"),
        str(_MINIATURE_WEIGHTS / "language_model"),
        "a small SANA-Sprint that draws coloured shapes at 64 px; ships with forejudge",
    ),
}

# Class of a diffusers pipeline -> the module and class that split it.
ARCHITECTURES: dict[str, tuple[str, str]] = {
    "SanaSprintPipeline": ("forejudge.generators.sana_sprint", "SanaSprint"),
    "PixArtAlphaPipeline": ("forejudge.generators.pixart", "PixArt"),
    "FluxPipeline": ("forejudge.generators.flux", "Flux"),
    "Flux2KleinPipeline": ("forejudge.generators.flux2", "Flux2Klein"),
}


def as_generator(
    pipeline: Any, name: str = "a pipeline given by the caller", options: Mapping[str, Any] | None = None
) -> Generator:
    """Wrap a diffusers pipeline, which stays as it is; `options` are fields of its generator's options.

    Raises InvalidRequest for a class that is not supported, or an option that it has not.
    """
    kind = type(pipeline).__name__
    if kind not in ARCHITECTURES:
        raise InvalidRequest(f"{kind} is not supported; supported are {', '.join(ARCHITECTURES)}")
    module, class_name = ARCHITECTURES[kind]
    architecture: type[StepwiseGenerator] = getattr(importlib.import_module(module), class_name)
    return architecture(pipeline, name, architecture.options_type.of(pipeline, options or {}))


def load_generator(name: str, device: torch.device, dtype: torch.dtype) -> Generator:
    """Load a known model, a folder or a hub id, with options after it as `split_options` reads them.

    Raises CheckpointError for a folder that is incomplete, InvalidRequest for a pipeline that is not supported.
    """
    model, options = split_options(name)
    known = KNOWN_MODELS.get(model)
    source = known.generator if known else model
    if not Path(source).exists() and source.count("/") != 1:
        raise InvalidRequest(
            f"unknown generator {name!r}: expected a folder, a hub id such as owner/model, or one of "
            f"{', '.join(KNOWN_MODELS)}"
        )
    folder = Path(source) if Path(source).exists() else _downloaded(source)
    return as_generator(_load_pipeline(folder, dtype).to(device), name, options)


def _downloaded(hub_id: str) -> Path:
    from diffusers import DiffusionPipeline

    with named_file(Path(hub_id)):
        return Path(DiffusionPipeline.download(hub_id, use_safetensors=True))


def _load_pipeline(folder: Path, dtype: torch.dtype) -> Any:
    from diffusers import DiffusionPipeline
    from transformers import PreTrainedTokenizerBase

    parts: dict[str, Any] = {}
    for part, kind in _part_classes(folder).items():
        if issubclass(kind, nn.Module):
            parts[part] = load_library_model(kind, folder / part, dtype, extra_allowed=True)
        elif issubclass(kind, PreTrainedTokenizerBase):
            parts[part] = load_tokenizer(kind, folder / part)
    with named_file(folder), quiet_libraries():
        pipeline = DiffusionPipeline.from_pretrained(folder, local_files_only=True, **parts)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def _part_classes(folder: Path) -> dict[str, type]:
    """The parts of a pipeline's folder, and their classes in diffusers or transformers."""
    index = folder / "model_index.json"
    if not index.is_file():
        raise CheckpointError(f"{folder} holds no model_index.json: expected a folder saved by a diffusers pipeline")
    with named_file(index):
        described = json.loads(index.read_text(encoding="utf-8"))
        pipeline = described["_class_name"]
    if pipeline not in ARCHITECTURES:
        raise InvalidRequest(f"{folder} holds a {pipeline}; supported are {', '.join(ARCHITECTURES)}")
    with named_file(index):
        return {
            part: getattr(importlib.import_module(entry[0]), entry[1])
            for part, entry in described.items()
            if isinstance(entry, list) and entry[0] in ("diffusers", "transformers")
        }
