"""Generators by name: a short one, a folder or a hub id. The class of the pipeline decides which of ours splits it."""

import importlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from accelerate.hooks import ModelHook, add_hook_to_module
from torch import nn

from forejudge.checkpoint import checkpoint_errors, quiet_libraries
from forejudge.errors import CheckpointError, InvalidRequest
from forejudge.generators.base import Generator
from forejudge.generators.known import GeneratorSpec, SchedulerSpec, find_spec, known_models, split_options
from forejudge.hub import MODEL_FILES, Source, fetch, is_hub_id
from forejudge.library_models import PICKLED_WEIGHTS, load_library_model, load_tokenizer

if TYPE_CHECKING:
    from forejudge.generators.stepwise import StepwiseGenerator


# FOLDED: Text encoders that wait on the CPU: each is on the generator's device only while it reads a prompt.


TEXT_ENCODER = "text-encoder"


def check_offload(offload: str | None) -> None:
    """Raises InvalidRequest for what cannot be offloaded."""
    if offload not in (None, TEXT_ENCODER):
        raise InvalidRequest(f"offload = {offload!r} is not supported: use {TEXT_ENCODER}, or leave it out")


def is_text_encoder(component: str) -> bool:
    """Whether diffusers calls a text encoder so: text_encoder, text_encoder_2, ..."""
    return component.startswith("text_encoder")


def offload_text_encoders(pipeline: Any, device: torch.device) -> None:
    """Let every text encoder of a diffusers pipeline come to the device when it is called, and leave it after."""
    for component, module in pipeline.components.items():
        if isinstance(module, nn.Module) and is_text_encoder(component):
            add_hook_to_module(module, _OffloadAfterForwardHook(device))


class _OffloadAfterForwardHook(ModelHook):
    """accelerate's own hooks fetch a model as well, but leave it there until another one is called."""

    def __init__(self, execution_device: torch.device) -> None:
        self.execution_device = execution_device

    def pre_forward(self, module: nn.Module, *args: Any, **kwargs: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Fetch it."""
        module.to(self.execution_device)
        return args, kwargs

    def post_forward(self, module: nn.Module, output: Any) -> Any:
        """Send it back."""
        module.to(_CPU)
        return output


# FOLDED: A diffusers pipeline from its folder, part by part and strictly; its transformer may come from another repository.


_CPU = torch.device("cpu")
_INDEX = "model_index.json"
_LIBRARIES = ("diffusers", "transformers")
_VARIANT_FILES = ("*.fp16*", "*.bf16*")  # of the same weights, rounded
_TRANSFORMER = "transformer"
_WEIGHTS = ("diffusion_pytorch_*.json", "diffusion_pytorch_*.safetensors")
_TRANSFORMER_FILES = (f"{_TRANSFORMER}/*.json", f"{_TRANSFORMER}/*.safetensors", "config.json", *_WEIGHTS, "README.md")


@dataclass(frozen=True)
class PipelineIndex:
    """What model_index.json says: the pipeline's class, and library and class of each of its parts."""

    source: Source
    pipeline: str
    components: dict[str, tuple[str, str]]

    @classmethod
    def of(cls, name: str) -> "PipelineIndex":
        """Read it from a folder or a hub id, of which nothing else is fetched. Raises CheckpointError."""
        source = fetch(name, [_INDEX])
        path = source.folder / _INDEX
        if not path.is_file():
            raise CheckpointError(f"{name} holds no {_INDEX}: expected what a pipeline of diffusers saves")
        with checkpoint_errors(path):
            index = json.loads(path.read_text(encoding="utf-8"))
            components = {component: tuple(entry) for component, entry in index.items() if isinstance(entry, list)}
            pipeline = str(index["_class_name"])
        return cls(
            source, pipeline, {component: entry for component, entry in components.items() if entry[0] is not None}
        )

    def load(
        self, spec: GeneratorSpec, device: torch.device, dtype: torch.dtype, offload: str | None = None
    ) -> tuple[Any, tuple[Source, ...]]:
        """The pipeline, and where it came from: its own folder, then its transformer's where that has another.

        Parts that are offloaded are left on the CPU.
        """
        folder = self._fetch_folder(spec)
        folders = {component: folder / component for component in self.components}
        sources = [self.source]
        if spec.transformer:
            sources.append(_fetch_transformer(spec.transformer))
            folders[_TRANSFORMER] = _transformer_folder(sources[1].folder)
        devices = {component: _CPU if offload and is_text_encoder(component) else device for component in folders}
        components = {
            component: self._load_component(component, folder, devices[component], dtype)
            for component, folder in folders.items()
        }
        if spec.scheduler:
            components["scheduler"] = _scheduler(spec.scheduler, folders["scheduler"])
        loaded_components = {component: loaded for component, loaded in components.items() if loaded is not None}
        with checkpoint_errors(self.source.folder), quiet_libraries():
            from diffusers import DiffusionPipeline

            pipeline = DiffusionPipeline.from_pretrained(self.source.folder, local_files_only=True, **loaded_components)
        pipeline.set_progress_bar_config(disable=True)
        return pipeline, tuple(sources)

    def _fetch_folder(self, spec: GeneratorSpec) -> Path:
        """The folder with all that is needed of it: the very commit whose index was read."""
        if self.source.commit is None:
            return self.source.folder
        components = [component for component in self.components if component != _TRANSFORMER or not spec.transformer]
        files = [f"{component}/{pattern}" for component in components for pattern in MODEL_FILES]
        return fetch(str(self.source), ["*.json", "README.md", *files], _VARIANT_FILES).folder

    def _load_component(self, component: str, folder: Path, device: torch.device, dtype: torch.dtype) -> Any:
        """A model on its device, before the next one is read; a tokenizer; None for what diffusers loads itself."""
        from transformers import PreTrainedTokenizerBase

        kind = self._component_class(component)
        if issubclass(kind, nn.Module):
            return load_library_model(kind, folder, dtype, device, allow_unexpected_keys=True)
        return load_tokenizer(kind, folder) if issubclass(kind, PreTrainedTokenizerBase) else None

    def _component_class(self, component: str) -> type:
        library, class_name = self.components[component]
        if library not in _LIBRARIES:
            raise CheckpointError(
                f"{self.source.folder} asks for code of its own ({library}.{class_name} as {component}), and no code that "
                "comes with a model is run: use a pipeline whose parts are classes of diffusers or transformers"
            )
        with checkpoint_errors(self.source.folder / _INDEX):
            kind: type = getattr(importlib.import_module(library), class_name)
            assert isinstance(kind, type), f"{class_name} is no class"
        return kind


def _fetch_transformer(name: str) -> Source:
    """A transformer's own repository; weights that are pickled only where there are no others."""
    source = fetch(name, _TRANSFORMER_FILES, _VARIANT_FILES)
    if not any(_transformer_folder(source.folder).glob("*.safetensors")):
        fetch(str(source), (PICKLED_WEIGHTS, f"{_TRANSFORMER}/{PICKLED_WEIGHTS}"))
    return source


def _transformer_folder(folder: Path) -> Path:
    """Repositories of a transformer alone have it at their root, or where a pipeline has it."""
    return folder / _TRANSFORMER if (folder / _TRANSFORMER).is_dir() else folder


def _scheduler(spec: SchedulerSpec, folder: Path) -> Any:
    import diffusers

    with checkpoint_errors(folder), quiet_libraries():
        return getattr(diffusers, spec.class_name).from_pretrained(folder, local_files_only=True, **spec.config)


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
    generator_class: type[StepwiseGenerator] = getattr(importlib.import_module(module), class_name)
    return generator_class(pipeline, name, generator_class.options_type.from_pipeline(pipeline, options or {}))


def load_generator(name: str, device: torch.device, dtype: torch.dtype, offload: str | None = None) -> Generator:
    """Load a known model, a folder or a hub id; of the hub also one revision, as `owner/model@REVISION`.

    Options may follow, as `split_options` reads them. With `offload` = "text-encoder" the text encoders are on the
    device only while they encode.

    Raises CheckpointError for a folder that is incomplete, InvalidRequest for a pipeline that is not supported.
    """
    model, options = split_options(name)
    spec = find_spec(model) or _minimal_spec(model)
    requested_spec = spec.model_copy(update={"name": name, "options": {**spec.options, **options}})
    return load_spec(requested_spec, device, dtype, offload)


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


def _minimal_spec(name: str) -> GeneratorSpec:
    """A spec that says no more than where it lies."""
    if not Path(name).exists() and not is_hub_id(name):
        raise InvalidRequest(
            f"unknown generator {name!r}: expected a folder, a hub id such as owner/model or owner/model@revision, or "
            f"one of {', '.join(known_models())}"
        )
    return GeneratorSpec(name=name, pipeline=name, description="")
