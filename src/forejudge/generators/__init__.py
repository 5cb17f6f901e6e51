"""Generators: the registry of known ones, and how to load them."""

from forejudge.generators.known import KNOWN_MODELS, GeneratorSpec, find_spec, known_models
from forejudge.generators.loading import (
    ARCHITECTURES,
    as_generator,
    load_architecture,
    load_baseline,
    load_generator,
    resolve_spec,
)

__all__ = [
    "ARCHITECTURES",
    "KNOWN_MODELS",
    "GeneratorSpec",
    "as_generator",
    "find_spec",
    "known_models",
    "load_architecture",
    "load_baseline",
    "load_generator",
    "resolve_spec",
]
