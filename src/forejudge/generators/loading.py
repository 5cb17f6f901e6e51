"""Load generators by short name, folder or hub id; the class of the pipeline decides which of ours wraps it.

A pipeline is read component by component and strictly; its transformer may come from another repository.
"""

import importlib
import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from accelerate.hooks import ModelHook, add_hook_to_module
from torch import nn

from forejudge.checkpoint import checkpoint_errors, quiet_libraries
from forejudge.digests import cached_digest, check_checksums
from forejudge.errors import CheckpointError, InvalidRequest
from forejudge.files import exists, is_dir, is_file
from forejudge.generators.base import Architecture, Generator
from forejudge.generators.components import check_tokenizers, load_scheduler, missing_components
from forejudge.generators.diffusers_pipeline import BlackBox
from forejudge.generators.digest import ModelDigests, model_digest, remember_weights
from forejudge.generators.known import GeneratorSpec, find_spec, known_models, split_options
from forejudge.hub import MODEL_FILES, Source, fetch, is_hub_id
from forejudge.library_models import PICKLED_WEIGHTS, load_library_model, load_tokenizer, new_library_model
from forejudge.plugins import load_object

if TYPE_CHECKING:
    from forejudge.generators.stepwise import StepwiseGenerator

# Class of a diffusers pipeline -> module and class of the generator that wraps it.
ARCHITECTURES: dict[str, tuple[str, str]] = {
    "SanaSprintPipeline": ("forejudge.generators.sana_sprint", "SanaSprint"),
    "PixArtAlphaPipeline": ("forejudge.generators.pixart", "PixArt"),
    "FluxPipeline": ("forejudge.generators.flux", "Flux"),
    "Flux2KleinPipeline": ("forejudge.generators.flux2", "Flux2Klein"),
    "StableDiffusion3Pipeline": ("forejudge.generators.sd3", "StableDiffusion3"),
}
_NOT_SUPPORTED = (
    f"is not supported: use one of {', '.join(ARCHITECTURES)}, or add it as docs/add-a-generator.md describes"
)
TEXT_ENCODER = "text-encoder"  # the only value of `offload`
_CPU = torch.device("cpu")
_INDEX = "model_index.json"
_LIBRARIES = ("diffusers", "transformers")
_WEIGHT_FILES = ("*.safetensors",)
_VARIANT_FILES = ("*.fp16*", "*.bf16*")  # the same weights, rounded
_TRANSFORMER = "transformer"
_CONFIG_FILES = (f"{_TRANSFORMER}/config.json", "config.json")
_WEIGHTS = ("diffusion_pytorch_*.json", "diffusion_pytorch_*.safetensors")
_TRANSFORMER_FILES = (f"{_TRANSFORMER}/*.json", f"{_TRANSFORMER}/*.safetensors", "config.json", *_WEIGHTS, "README.md")


def load_generator(name: str, device: torch.device, dtype: torch.dtype, offload: str | None = None) -> Generator:
    """Load a known model, a folder or a hub id; a hub id may name a revision, as `owner/model@REVISION`.

    Options may follow the name, as `split_options` reads them. With `offload` = "text-encoder" the text encoders are
    on the device only while encoding. On the meta device no weights are fetched or read: such a generator only checks
    prompts and sampling parameters, in a moment.

    Raises CheckpointError for an incomplete folder, InvalidRequest for a pipeline that is not supported.
    """
    return load_spec(resolve_spec(name), device, dtype, offload)


def load_spec(spec: GeneratorSpec, device: torch.device, dtype: torch.dtype, offload: str | None = None) -> Generator:
    """Load the generator of a spec; results call it by the spec's name. Raises the same errors as `load_generator`."""
    check_offload(offload)
    index = PipelineIndex.from_pretrained(spec.pipeline)
    generator_class = _generator_class(index.pipeline_class, spec.pipeline)
    index.check(spec, generator_class.optional_components)
    loaded = index.load(spec, device, dtype, offload, generator_class.optional_components)
    generator = as_generator(loaded.pipeline, spec.name, spec.options)
    generator.known_digests |= loaded.digests
    if offload:
        offload_text_encoders(generator.pipeline, device)
    generator.sources, generator.defaults = loaded.sources, spec.sampling
    if spec.vocabulary:
        generator.vocabulary = frozenset(load_object(spec.vocabulary, "vocabulary")())
    return generator


def load_baseline(name: str, device: torch.device, dtype: torch.dtype) -> Generator:
    """Load what `load_generator` takes; a pipeline that is not supported becomes a black box without stages.

    Raises CheckpointError, and InvalidRequest for an unknown name and for options of a black box.
    """
    spec = resolve_spec(name)
    if PipelineIndex.from_pretrained(spec.pipeline).pipeline_class in ARCHITECTURES:
        return load_spec(spec, device, dtype)
    if spec.options:
        raise InvalidRequest(f"{spec.pipeline} takes no options, got {', '.join(spec.options)}: leave them out")
    return BlackBox.from_pretrained(spec.pipeline, device, dtype)


def as_generator(
    pipeline: Any, name: str = "a pipeline given by the caller", options: Mapping[str, Any] | None = None
) -> "StepwiseGenerator":
    """Wrap a diffusers pipeline without changing it; `options` are fields of its generator's options.

    Raises InvalidRequest for a class that is not supported or an unknown option.
    """
    generator_class = _generator_class(type(pipeline).__name__)
    present = [component for component, part in pipeline.components.items() if part is not None]
    for component in missing_components(type(pipeline), present, generator_class.optional_components):
        raise InvalidRequest(f"{name} has no {component}: a {type(pipeline).__name__} cannot generate without it")
    check_tokenizers(pipeline.components)
    return generator_class(pipeline, name, generator_class.options_type.from_pipeline(pipeline, options or {}))


def load_architecture(name: str) -> Architecture:
    """Return a generator's architecture without its weights: from the registry, else from its transformer's config.

    `name` is one that `load_generator` takes. Only config files are fetched. Raises the same errors.
    """
    spec = resolve_spec(name)
    # A folder with the name of the weights takes precedence: `load_generator` would load it.
    if spec.architecture is not None and not is_dir(spec.weights):
        return spec.architecture
    index = PipelineIndex.from_pretrained(spec.pipeline)
    generator_class = _generator_class(index.pipeline_class, spec.pipeline)
    if spec.transformer:
        folder = _transformer_folder(fetch(spec.transformer, _CONFIG_FILES).folder)
    else:
        folder = fetch(str(index.source), _CONFIG_FILES).folder / _TRANSFORMER
    transformer: Any = new_library_model(index.component_class(_TRANSFORMER), folder)
    return generator_class.split.architecture(transformer)


def _generator_class(pipeline_class: str, folder: str | None = None) -> "type[StepwiseGenerator]":
    if pipeline_class not in ARCHITECTURES:
        subject = f"{folder} holds a {pipeline_class}, which" if folder else pipeline_class
        raise InvalidRequest(f"{subject} {_NOT_SUPPORTED}")
    module, class_name = ARCHITECTURES[pipeline_class]
    with quiet_libraries():  # pipelines of diffusers warn about image processors on import
        generator_class: type[StepwiseGenerator] = getattr(importlib.import_module(module), class_name)
    return generator_class


def resolve_spec(name: str) -> GeneratorSpec:
    """Look a name up in the registry; for a folder or hub id that is not there, make a spec that names nothing else.

    Raises InvalidRequest for a name that is none of them.
    """
    model, options = split_options(name)
    spec = find_spec(model)
    if spec is None and not exists(model) and not is_hub_id(model):
        raise InvalidRequest(
            f"unknown generator {model!r}: expected a folder, a hub id such as owner/model or owner/model@revision, or "
            f"one of {', '.join(known_models())}"
        )
    spec = spec or GeneratorSpec(name=model, pipeline=model, description="")
    return spec.model_copy(update={"name": name, "options": {**spec.options, **options}})


@dataclass(frozen=True)
class LoadedPipeline:
    """A pipeline with its sources: its own, then its transformer's if that has another; and digests of its models."""

    pipeline: Any
    sources: tuple[Source, ...]
    digests: ModelDigests


@dataclass(frozen=True)
class PipelineIndex:
    """Content of model_index.json: the pipeline's class, and library and class of each component."""

    source: Source
    pipeline_class: str
    components: dict[str, tuple[str, str]]

    @classmethod
    def from_pretrained(cls, name: str) -> "PipelineIndex":
        """Read the index of a folder or hub id and fetch nothing else. Raises CheckpointError."""
        source = fetch(name, [_INDEX])
        path = source.folder / _INDEX
        if not is_file(path):
            raise CheckpointError(f"{name} holds no {_INDEX}: expected a folder saved by a diffusers pipeline")
        with checkpoint_errors(path):
            index = json.loads(path.read_text(encoding="utf-8"))
            pipeline_class = str(index.pop("_class_name"))
        entries = {component: entry for component, entry in index.items() if isinstance(entry, list | None)}
        for component, entry in entries.items():
            if entry != [None, None] and (entry is None or [type(part) for part in entry] != [str, str]):
                raise CheckpointError(
                    f"{path}: {component} = {entry!r}: expected library and class, or [null, null] for no component"
                )
        return cls(
            source,
            pipeline_class,
            {name: (entry[0], entry[1]) for name, entry in entries.items() if entry and entry[0]},
        )

    def check(self, spec: GeneratorSpec, optional: Collection[str]) -> None:
        """Raise CheckpointError for an index that leaves out a component which its pipeline needs."""
        pipeline_class = self._class_of("diffusers", self.pipeline_class)
        present = [*self.components, *([_TRANSFORMER] if spec.transformer else [])]
        for component in missing_components(pipeline_class, present, optional):
            raise CheckpointError(
                f"{self.source.folder / _INDEX} names no {component}, which a {self.pipeline_class} needs: get the "
                "pipeline again"
            )

    def load(
        self,
        spec: GeneratorSpec,
        device: torch.device,
        dtype: torch.dtype,
        offload: str | None = None,
        optional_components: Collection[str] = (),
    ) -> "LoadedPipeline":
        """Load the pipeline. Offloaded components stay on the CPU. Raises CheckpointError for damaged weights."""
        with_weights = device.type != "meta"
        folder = self._fetch_folder(spec, with_weights)
        folders = {component: folder / component for component in self.components}
        sources = [self.source]
        if spec.transformer:
            sources.append(
                _fetch_transformer(spec.transformer) if with_weights else fetch(spec.transformer, _CONFIG_FILES)
            )
            folders[_TRANSFORMER] = _transformer_folder(sources[1].folder)
        for component, component_folder in folders.items():
            if not is_dir(component_folder):
                raise CheckpointError(
                    f"{component_folder} is missing: {_INDEX} names the pipeline's {component}, so get its folder again"
                )
        devices = {component: _CPU if offload and is_text_encoder(component) else device for component in folders}
        components = {
            component: self._load_component(component, folder, devices[component], dtype)
            for component, folder in folders.items()
        }
        if spec.scheduler:
            components["scheduler"] = load_scheduler(
                self._class_of("diffusers", spec.scheduler.class_name), folders["scheduler"], spec.scheduler.config
            )
        loaded_components = {component: loaded for component, loaded in components.items() if loaded is not None}
        # diffusers takes a component that it needs and that is left out on purpose as None only.
        loaded_components |= dict.fromkeys(set(optional_components) - components.keys())
        with checkpoint_errors(self.source.folder), quiet_libraries():
            from diffusers import DiffusionPipeline

            pipeline = DiffusionPipeline.from_pretrained(self.source.folder, local_files_only=True, **loaded_components)
        pipeline.set_progress_bar_config(disable=True)
        if not with_weights:
            return LoadedPipeline(pipeline, tuple(sources), {})
        for source in sources:
            check_checksums(source.folder)
        digests = {
            component: self._weights_digest(component, model, folders[component], dtype)
            for component, model in components.items()
            if isinstance(model, nn.Module)
        }
        return LoadedPipeline(pipeline, tuple(sources), digests)

    def _fetch_folder(self, spec: GeneratorSpec, with_weights: bool) -> Path:
        """Fetch all files that the pipeline needs, at the commit whose index was read."""
        if self.source.commit is None:
            return self.source.folder
        components = [component for component in self.components if component != _TRANSFORMER or not spec.transformer]
        files = [f"{component}/{pattern}" for component in components for pattern in MODEL_FILES]
        left_out = _VARIANT_FILES if with_weights else _WEIGHT_FILES
        folder = fetch(str(self.source), ["*.json", "README.md", *files], left_out).folder
        if not with_weights:
            return folder
        without_weights = [name for name in components if _lacks_weights(folder / name)]
        if without_weights:
            fetch(str(self.source), [f"{name}/{pattern}" for name in without_weights for pattern in MODEL_FILES])
        return folder

    def _load_component(self, component: str, folder: Path, device: torch.device, dtype: torch.dtype) -> Any:
        """Load a model onto its device, a scheduler or a tokenizer; return None for what diffusers loads itself."""
        from diffusers import SchedulerMixin
        from transformers import PreTrainedTokenizerBase

        component_class = self.component_class(component)
        if issubclass(component_class, nn.Module):
            if device.type == "meta":
                return new_library_model(component_class, folder)
            return load_library_model(component_class, folder, dtype, device, allow_unexpected_keys=True)
        if issubclass(component_class, SchedulerMixin):
            return load_scheduler(component_class, folder)
        return load_tokenizer(component_class, folder) if issubclass(component_class, PreTrainedTokenizerBase) else None

    def _weights_digest(self, component: str, model: nn.Module, folder: Path, dtype: torch.dtype) -> tuple[Any, str]:
        """Return the entry of `ModelDigests` for a model that was just loaded from a folder."""
        component_class = self.component_class(component)

        def compute() -> str:
            # float16 holds other weights than those that were stored, so it must not decide their digest.
            is_exact = dtype != torch.float16
            return model_digest(
                model
                if is_exact
                else load_library_model(component_class, folder, torch.float32, allow_unexpected_keys=True)
            )

        files = [*folder.glob("*.safetensors"), *folder.glob(PICKLED_WEIGHTS)]
        return remember_weights(model, cached_digest(files, component_class.__name__, compute))

    def component_class(self, component: str) -> type:
        """Return the class of a component. Raises CheckpointError for code that comes with the model."""
        library, class_name = self.components[component]
        if library not in _LIBRARIES:
            raise CheckpointError(
                f"{self.source.folder} asks for code of its own ({library}.{class_name} as {component}), and code that "
                "comes with a model is never run: use a pipeline whose components are classes of diffusers or "
                "transformers"
            )
        return self._class_of(library, class_name)

    def _class_of(self, library: str, class_name: str) -> type:
        with checkpoint_errors(self.source.folder / _INDEX), quiet_libraries():
            named_class: type = getattr(importlib.import_module(library), class_name)
            assert isinstance(named_class, type), f"{class_name} is not a class"
        return named_class


def _fetch_transformer(name: str) -> Source:
    """Fetch a transformer's own repository; variants of weights, then pickled ones, only if there are no others."""
    source = fetch(name, _TRANSFORMER_FILES, _VARIANT_FILES)
    if _lacks_weights(_transformer_folder(source.folder)):
        fetch(str(source), _TRANSFORMER_FILES)
    if not any(_transformer_folder(source.folder).glob("*.safetensors")):
        fetch(str(source), (PICKLED_WEIGHTS, f"{_TRANSFORMER}/{PICKLED_WEIGHTS}"))
    return source


def _lacks_weights(folder: Path) -> bool:
    return is_file(folder / "config.json") and not any(folder.glob("*.safetensors"))


def _transformer_folder(folder: Path) -> Path:
    """Return the folder of a transformer in its own repository: the root, or where a pipeline has it."""
    return folder / _TRANSFORMER if is_dir(folder / _TRANSFORMER) else folder


def check_offload(offload: str | None) -> None:
    """Raise InvalidRequest for a component that cannot be offloaded."""
    if offload not in (None, TEXT_ENCODER):
        raise InvalidRequest(f"offload = {offload!r} is not supported: use {TEXT_ENCODER}, or leave it out")


def is_text_encoder(component: str) -> bool:
    """Tell whether a component's name is diffusers' for a text encoder: text_encoder, text_encoder_2, ..."""
    return component.startswith("text_encoder")


def offload_text_encoders(pipeline: Any, device: torch.device) -> None:
    """Move every text encoder of a pipeline to the device when it is called, and back to the CPU after."""
    for component, module in pipeline.components.items():
        if isinstance(module, nn.Module) and is_text_encoder(component):
            add_hook_to_module(module, _OffloadAfterForwardHook(device))


class _OffloadAfterForwardHook(ModelHook):
    """accelerate's own offload hooks leave a model on the device until another one is called; this one does not."""

    def __init__(self, execution_device: torch.device) -> None:
        self.execution_device = execution_device

    def pre_forward(self, module: nn.Module, *args: Any, **kwargs: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Move the module to the device."""
        module.to(self.execution_device)
        return args, kwargs

    def post_forward(self, module: nn.Module, output: Any) -> Any:
        """Move the module back to the CPU."""
        module.to(_CPU)
        return output
