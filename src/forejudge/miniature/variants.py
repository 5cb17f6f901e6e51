"""What the studies compare: verifiers of the miniature that differ from the shipped recipe in one thing."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from forejudge.miniature.verifier_build import Captions
from forejudge.training.losses import VerifierLoss

BASE = "class-weighted, new captions"  # the shipped recipe


@dataclass(frozen=True)
class Variant:
    """What is aligned to (None: no alignment), and which fields of both stages' recipes differ."""

    captions: Captions | None = "new"
    changes: Mapping[str, Any] = field(default_factory=dict)


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


STUDIES: dict[str, dict[str, Variant]] = {
    "layers": _layers((1, 4, 8, 12, 16, 20, 24)),
    "loss": _losses(),
    "captions": _captions(),
    "pooling": _pooling(),
    "data": _data((4000, 16000, 64000)),
}
