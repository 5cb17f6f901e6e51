"""Generators: what is known of them by name, and how they are loaded."""

from forejudge.generators.known import KNOWN_MODELS, GeneratorSpec, find_spec, known_models
from forejudge.generators.loading import ARCHITECTURES, as_generator, load_generator

__all__ = [
    "ARCHITECTURES",
    "KNOWN_MODELS",
    "GeneratorSpec",
    "as_generator",
    "find_spec",
    "known_models",
    "load_generator",
]
