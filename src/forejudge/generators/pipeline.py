"""A diffusers pipeline from its folder, part by part and strictly; its transformer may come from another repository."""

import importlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from forejudge.errors import CheckpointError
from forejudge.generators.offload import is_text_encoder
from forejudge.generators.spec import GeneratorSpec, SchedulerSpec
from forejudge.hub import MODEL_FILES, Source, fetch
from forejudge.library_calls import named_file, quiet_libraries
from forejudge.library_models import PICKLED_WEIGHTS, load_library_model, load_tokenizer

_CPU = torch.device("cpu")
_INDEX = "model_index.json"
_LIBRARIES = ("diffusers", "transformers")
_SECOND_COPIES = ("*.fp16*", "*.bf16*")  # of the same weights, rounded
_TRANSFORMER = "transformer"
_WEIGHTS = ("diffusion_pytorch_*.json", "diffusion_pytorch_*.safetensors")
_TRANSFORMER_FILES = (f"{_TRANSFORMER}/*.json", f"{_TRANSFORMER}/*.safetensors", "config.json", *_WEIGHTS, "README.md")


@dataclass(frozen=True)
class PipelineIndex:
    """What model_index.json says: the pipeline's class, and library and class of each of its parts."""

    source: Source
    pipeline: str
    parts: dict[str, tuple[str, str]]

    @classmethod
    def of(cls, name: str) -> "PipelineIndex":
        """Read it from a folder or a hub id, of which nothing else is fetched. Raises CheckpointError."""
        source = fetch(name, [_INDEX])
        path = source.folder / _INDEX
        if not path.is_file():
            raise CheckpointError(f"{name} holds no {_INDEX}: expected what a pipeline of diffusers saves")
        with named_file(path):
            described = json.loads(path.read_text(encoding="utf-8"))
            parts = {part: tuple(entry) for part, entry in described.items() if isinstance(entry, list)}
            pipeline = str(described["_class_name"])
        return cls(source, pipeline, {part: entry for part, entry in parts.items() if entry[0] is not None})

    def load(
        self, spec: GeneratorSpec, device: torch.device, dtype: torch.dtype, offload: str | None = None
    ) -> tuple[Any, tuple[Source, ...]]:
        """The pipeline, and where it came from: its own folder, then its transformer's where that has another.

        Parts that are offloaded are left on the CPU.
        """
        folder = self._fetched(spec)
        folders = {part: folder / part for part in self.parts}
        sources = [self.source]
        if spec.transformer:
            sources.append(_fetched_transformer(spec.transformer))
            folders[_TRANSFORMER] = _transformer_in(sources[1].folder)
        devices = {part: _CPU if offload and is_text_encoder(part) else device for part in folders}
        parts = {part: self._load_part(part, folder, devices[part], dtype) for part, folder in folders.items()}
        if spec.scheduler:
            parts["scheduler"] = _scheduler(spec.scheduler, folders["scheduler"])
        given = {part: loaded for part, loaded in parts.items() if loaded is not None}
        with named_file(self.source.folder), quiet_libraries():
            from diffusers import DiffusionPipeline

            pipeline = DiffusionPipeline.from_pretrained(self.source.folder, local_files_only=True, **given)
        pipeline.set_progress_bar_config(disable=True)
        return pipeline, tuple(sources)

    def _fetched(self, spec: GeneratorSpec) -> Path:
        """The folder with all that is needed of it: the very commit whose index was read."""
        if self.source.commit is None:
            return self.source.folder
        parts = [part for part in self.parts if part != _TRANSFORMER or not spec.transformer]
        files = [f"{part}/{pattern}" for part in parts for pattern in MODEL_FILES]
        return fetch(str(self.source), ["*.json", "README.md", *files], _SECOND_COPIES).folder

    def _load_part(self, part: str, folder: Path, device: torch.device, dtype: torch.dtype) -> Any:
        """A model on its device, before the next one is read; a tokenizer; None for what diffusers loads itself."""
        from transformers import PreTrainedTokenizerBase

        kind = self._class_of(part)
        if issubclass(kind, nn.Module):
            return load_library_model(kind, folder, dtype, device, extra_allowed=True)
        return load_tokenizer(kind, folder) if issubclass(kind, PreTrainedTokenizerBase) else None

    def _class_of(self, part: str) -> type:
        library, class_name = self.parts[part]
        if library not in _LIBRARIES:
            raise CheckpointError(
                f"{self.source.folder} asks for code of its own ({library}.{class_name} as {part}), and no code that "
                "comes with a model is run: use a pipeline whose parts are classes of diffusers or transformers"
            )
        with named_file(self.source.folder / _INDEX):
            kind: type = getattr(importlib.import_module(library), class_name)
            assert isinstance(kind, type), f"{class_name} is no class"
        return kind


def _fetched_transformer(name: str) -> Source:
    """A transformer's own repository; weights that are pickled only where there are no others."""
    source = fetch(name, _TRANSFORMER_FILES, _SECOND_COPIES)
    if not any(_transformer_in(source.folder).glob("*.safetensors")):
        fetch(str(source), (PICKLED_WEIGHTS, f"{_TRANSFORMER}/{PICKLED_WEIGHTS}"))
    return source


def _transformer_in(folder: Path) -> Path:
    """Repositories of a transformer alone have it at their root, or where a pipeline has it."""
    return folder / _TRANSFORMER if (folder / _TRANSFORMER).is_dir() else folder


def _scheduler(spec: SchedulerSpec, folder: Path) -> Any:
    import diffusers

    with named_file(folder), quiet_libraries():
        return getattr(diffusers, spec.class_name).from_pretrained(folder, local_files_only=True, **spec.config)
