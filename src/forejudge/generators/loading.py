"""Generators by name: a short one, a folder or a hub id. The class of the pipeline decides which of ours splits it."""

import importlib
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from forejudge.errors import InvalidRequest
from forejudge.generators.base import Generator
from forejudge.generators.offload import check_offload, offload_text_encoders
from forejudge.generators.pipeline import PipelineIndex
from forejudge.generators.spec import KNOWN_MODELS, GeneratorSpec, find_spec
from forejudge.generators.spelling import split_options
from forejudge.hub import is_hub_id

if TYPE_CHECKING:
    from forejudge.generators.stepwise import StepwiseGenerator

# Class of a diffusers pipeline -> the module and class that split it.
ARCHITECTURES: dict[str, tuple[str, str]] = {
    "SanaSprintPipeline": ("forejudge.generators.sana_sprint", "SanaSprint"),
    "PixArtAlphaPipeline": ("forejudge.generators.pixart", "PixArt"),
    "FluxPipeline": ("forejudge.generators.flux", "Flux"),
    "Flux2KleinPipeline": ("forejudge.generators.flux2", "Flux2Klein"),
    "StableDiffusion3Pipeline": ("forejudge.generators.sd3", "StableDiffusion3"),
}
_NOT_SUPPORTED = (
    f"is not supported; supported are {', '.join(ARCHITECTURES)}, and docs/add-a-generator.md says how to add another"
)


def as_generator(
    pipeline: Any, name: str = "a pipeline given by the caller", options: Mapping[str, Any] | None = None
) -> "StepwiseGenerator":
    """Wrap a diffusers pipeline, which stays as it is; `options` are fields of its generator's options.

    Raises InvalidRequest for a class that is not supported, or an option that it has not.
    """
    kind = type(pipeline).__name__
    if kind not in ARCHITECTURES:
        raise InvalidRequest(f"{kind} {_NOT_SUPPORTED}")
    module, class_name = ARCHITECTURES[kind]
    architecture: type[StepwiseGenerator] = getattr(importlib.import_module(module), class_name)
    return architecture(pipeline, name, architecture.options_type.of(pipeline, options or {}))


def load_generator(name: str, device: torch.device, dtype: torch.dtype, offload: str | None = None) -> Generator:
    """Load a known model, a folder or a hub id; of the hub also one revision, as `owner/model@REVISION`.

    Options may follow, as `split_options` reads them. With `offload` = "text-encoder" the text encoders are on the
    device only while they encode.

    Raises CheckpointError for a folder that is incomplete, InvalidRequest for a pipeline that is not supported.
    """
    model, options = split_options(name)
    spec = find_spec(model) or _unknown(model)
    asked = spec.model_copy(update={"name": name, "options": {**spec.options, **options}})
    return load_spec(asked, device, dtype, offload)


def load_spec(spec: GeneratorSpec, device: torch.device, dtype: torch.dtype, offload: str | None = None) -> Generator:
    """Load what a spec describes; results call it by the spec's name. Raises as `load_generator` does."""
    check_offload(offload)
    index = PipelineIndex.of(spec.pipeline)
    if index.pipeline not in ARCHITECTURES:
        raise InvalidRequest(f"{spec.pipeline} holds a {index.pipeline}, which {_NOT_SUPPORTED}")
    pipeline, sources = index.load(spec, device, dtype, offload)
    generator = as_generator(pipeline, spec.name, spec.options)
    if offload:
        offload_text_encoders(generator.pipeline, device)
    generator.sources, generator.defaults = sources, spec.sampling
    return generator


def _unknown(name: str) -> GeneratorSpec:
    """A spec that says no more than where it lies."""
    if not Path(name).exists() and not is_hub_id(name):
        raise InvalidRequest(
            f"unknown generator {name!r}: expected a folder, a hub id such as owner/model or owner/model@revision, or "
            f"one of {', '.join(KNOWN_MODELS)}"
        )
    return GeneratorSpec(name=name, pipeline=name, description="")
