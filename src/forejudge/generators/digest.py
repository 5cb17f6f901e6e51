"""Digest of everything that generates: weights, adapters, configs, tokenizers and the generator's options."""

import hashlib
import inspect
import json
from collections.abc import Iterable, Iterator
from typing import Any

from pydantic import BaseModel
from torch import Tensor, nn

from forejudge.compiling import unwrap_compiled
from forejudge.digests import PROBE, tensors_digest
from forejudge.generators.hooks import adapter_layers, stored_weight

_ADDED_NAMES = (".base_layer", "_orig_mod.")  # by peft and torch.compile to names of weights

ModelDigests = dict[str, tuple[Any, str]]
"""By component: its layout (see `_layout`) and the digest of its weights."""


def pipeline_digest(pipeline: Any, options: BaseModel, known: ModelDigests) -> str:
    """Hash what decides the images of a pipeline to 16 hexadecimal digits, wherever it was loaded from.

    Digests of weights are taken from `known` and added to it. They are computed again when a model has other weights
    by name or other adapters; a weight that was overwritten through `.data` is not noticed.
    """
    parts = {
        name: _describe(name, unwrap_compiled(part), known)
        for name, part in pipeline.components.items()
        if part is not None
    }
    # Defaults are left out everywhere, so that an option that a later version adds changes no digest.
    parts["options"] = options.model_dump(mode="json", exclude_defaults=True)
    return hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()[:16]


def model_digest(model: nn.Module) -> str:
    """Hash the weights that a model runs with: its own, and those of its active adapters, wherever they are kept."""
    modules = list(model.named_modules())
    unused = _unused_prefixes(modules)
    return tensors_digest(
        (_plain(name), stored_weight(module, attribute))
        for name, module, attribute, _ in _weights(modules)
        if not f"{name}.".startswith(unused)
    )


def remember_weights(model: nn.Module, digest: str) -> tuple[Any, str]:
    """Return the entry of `ModelDigests` for a model whose weights are as they were loaded."""
    return _layout(model), digest


def _describe(name: str, part: Any, known: ModelDigests) -> Any:
    description = {"class": type(part).__name__, "config": _changed_config(part)}
    if isinstance(part, nn.Module):
        layout = _, adapters = _layout(part)
        if name not in known or known[name][0] != layout:
            known[name] = layout, model_digest(part)
        return description | {"weights": known[name][1], "adapters": adapters}
    if hasattr(part, "get_vocab"):
        return {"tokens": part(PROBE).input_ids}
    return description


def _changed_config(part: Any) -> dict[str, Any]:
    """Return the fields of a config of diffusers that differ from the defaults of the class."""
    if not hasattr(part, "config_name") or not hasattr(part, "register_to_config"):
        return {}
    fields = inspect.signature(type(part).__init__).parameters
    values = {name: part.config[name] for name in fields if name in part.config}
    return {name: value for name, value in values.items() if _json(value) != _json(fields[name].default)}


def _json(value: Any) -> str:
    return json.dumps(value, default=str)  # lists equal tuples


def _layout(model: nn.Module) -> tuple[list[tuple[str, int]], list[Any]]:
    """Return names and versions of a model's weights and its adapters: what most changes change, at little cost."""
    modules = list(model.named_modules())
    return [(name, _version(weight)) for name, _, _, weight in _weights(modules)], _adapters(modules)


def _version(tensor: Tensor) -> int:
    return 0 if tensor.is_inference() else tensor._version  # tensors of inference mode have none


def _weights(modules: Iterable[tuple[str, nn.Module]]) -> Iterator[tuple[str, nn.Module, str, Tensor]]:
    """Yield each parameter and each buffer that is saved: its name, its module, its name there, and the tensor."""
    for prefix, module in modules:
        for name, weight in (*module._parameters.items(), *module._buffers.items()):
            if weight is not None and name not in module._non_persistent_buffers_set:
                yield f"{prefix}.{name}" if prefix else name, module, name, weight


def _plain(name: str) -> str:
    for added in _ADDED_NAMES:
        name = name.replace(added, "")
    return name


def _used(layer: Any) -> list[str]:
    """Return the adapters of a layer that are merged into its weights or added to its output."""
    return sorted({*layer.merged_adapters, *(() if layer.disable_adapters else layer.active_adapters)})


def _adapters(modules: Iterable[tuple[str, nn.Module]]) -> list[Any]:
    """Return scale of each adapter that is in use, and whether it is merged, by layer."""
    return [
        (name, adapter, getattr(layer, "scaling", {}).get(adapter), adapter in layer.merged_adapters)
        for name, layer in adapter_layers(modules)
        for adapter in _used(layer)
    ]


def _unused_prefixes(modules: Iterable[tuple[str, nn.Module]]) -> tuple[str, ...]:
    """Return how the names of weights of adapters that are not in use begin."""
    return tuple(
        f"{name}.{kind}.{adapter}."
        for name, layer in adapter_layers(modules)
        for kind in layer.adapter_layer_names
        for adapter in getattr(layer, kind)
        if adapter not in _used(layer)
    )
