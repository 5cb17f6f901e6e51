"""What the studies compare: verifiers of the miniature that differ from the shipped recipe in one thing."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from forejudge.miniature.generator_build import PIXART, SANA_SPRINT, GeneratorKind
from forejudge.miniature.recipe import GeneratorRecipe, smaller_generator
from forejudge.miniature.verifier_build import Captions
from forejudge.training.losses import VerifierLoss

BASE = "class-weighted, new captions"  # the shipped recipe


@dataclass(frozen=True)
class OtherGenerator:
    """A generator that a study builds, as `build_generator` does."""

    recipe: GeneratorRecipe
    kind: GeneratorKind = SANA_SPRINT


@dataclass(frozen=True)
class Variant:
    """What is aligned to (None: no alignment), and which fields of both stages' recipes differ.

    `language_model` has the fields of the language model's recipe that differ. `generator` takes the place of the
    build's own.
    """

    captions: Captions | None = "new"
    changes: Mapping[str, Any] = field(default_factory=dict)
    language_model: Mapping[str, int] = field(default_factory=dict)
    generator: OtherGenerator | None = None


def _losses() -> dict[str, Variant]:
    kinds = ("cross-entropy", "focal", "regression")
    return {BASE: Variant(), **{kind: Variant(changes={"loss": VerifierLoss(kind=kind)}) for kind in kinds}}


def _captions() -> dict[str, Variant]:
    return {
        BASE: Variant(),
        "original captions": Variant(captions="original"),
        "without alignment": Variant(captions=None),
    }


def _layers(cuts: tuple[int, ...]) -> dict[str, Variant]:
    return {f"after {cut} blocks": Variant(changes={"reads": f"hidden:{cut}"}) for cut in cuts}


def _pooling() -> dict[str, Variant]:
    return {f"{size} x {size} states a token": Variant(changes={"spatial_merge_size": size}) for size in (1, 2, 4)}


def _data(rows: tuple[int, ...]) -> dict[str, Variant]:
    return {f"{count} labels": Variant(changes={"training_rows": count}) for count in rows}


def _language_models() -> dict[str, Variant]:
    return {
        "1 layer of width 64": Variant(language_model={"layers": 1, "width": 64}),
        "3 layers of width 128": Variant(),
        "6 layers of width 192": Variant(language_model={"layers": 6, "width": 192}),
    }


def _generators() -> dict[str, Variant]:
    """Each read after half of its blocks."""
    half = {"reads": "hidden:8"}
    return {
        "24 blocks of width 128": Variant(),
        "16 blocks of width 96": Variant(changes=half, generator=OtherGenerator(smaller_generator())),
        "PixArt, 16 blocks of width 96": Variant(changes=half, generator=OtherGenerator(smaller_generator(), PIXART)),
    }


STUDIES: dict[str, dict[str, Variant]] = {
    "layers": _layers((1, 4, 8, 12, 16, 20, 24)),
    "loss": _losses(),
    "captions": _captions(),
    "pooling": _pooling(),
    "data": _data((4000, 16000, 64000)),
    "llm": _language_models(),
    "generator": _generators(),
}
