"""GenEval's rules: decide from detections and a prompt's metadata whether an image is correct.

Pure functions with the results of GenEval's evaluator (Ghosh et al., 2023, `evaluate_images.py`), float32 included.
They know neither detectors nor images: a color is read from its detection.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from forejudge.errors import InvalidRequest
from forejudge.prompts.geneval import COLORS, RELATIONS, IncludedObject, PromptMetadata, Relation

Box = tuple[float, float, float, float]
"""(x0, y0, x1, y1) in pixels, y pointing down."""


@dataclass(frozen=True)
class Detection:
    """One object found in one image, by any detector.

    `confidence` is in [0, 1]; `color` is one of GenEval's ten names, None where it was not read; `mask` is a boolean
    (height, width) array over the whole image, not part of equality.
    """

    class_name: str
    box: Box
    confidence: float
    color: str | None = None
    mask: NDArray[np.bool_] | None = field(default=None, repr=False, compare=False)


def box_iou(a: Box, b: Box) -> float:
    """Compute the intersection over union in [0, 1] in float32; a box covers its last pixel too, as in GenEval."""
    box_a, box_b = np.asarray(a, np.float32), np.asarray(b, np.float32)
    intersection = _area(np.r_[np.maximum(box_a[:2], box_b[:2]), np.minimum(box_a[2:], box_b[2:])])
    union = _area(box_a) + _area(box_b) - intersection
    return float(intersection / union) if union else 0.0


def _area(box: NDArray[np.float32]) -> np.float32:
    width, height = np.maximum(box[2:] - box[:2] + 1, 0)
    return np.float32(width * height)


def relative_position(a: Box, b: Box, threshold: float) -> frozenset[Relation]:
    """Return the relations of box `a` to box `b`: none, one, or two on a diagonal.

    `threshold` times both sizes is subtracted from the offset between the centers along each axis; a relation holds
    where more than half of the offset's length remains.
    """
    corners = np.array([a, b], np.float32).reshape(2, 2, 2)
    sizes = np.abs(corners[:, 1] - corners[:, 0])
    center_a, center_b = corners.mean(axis=1)
    offset = center_a - center_b
    beyond = np.maximum(np.abs(offset) - threshold * sizes.sum(axis=0), 0) * np.sign(offset)
    if np.all(np.abs(beyond) < 1e-3):
        return frozenset()
    right, down = beyond / np.linalg.norm(offset)
    holds = (right < -0.5, right > 0.5, down < -0.5, down > 0.5)
    return frozenset(name for name, true in zip(RELATIONS, holds, strict=True) if true)


@dataclass(frozen=True)
class Thresholds:
    """Thresholds of the rules; the defaults are GenEval's.

    A detection counts when its confidence is above `detection`, in the counting task `counting`. Of a class the
    `max_objects` most confident stay, without those that overlap a better one by an intersection over union of
    `max_overlap` or more (1.0: all stay). `position` is the share of both objects' sizes that is subtracted from their
    distance before a relation is read from it. Raises InvalidRequest for a value out of range.
    """

    detection: float = 0.3
    counting: float = 0.9
    max_objects: int = 16
    max_overlap: float = 1.0
    position: float = 0.1

    def __post_init__(self) -> None:
        for name in ("detection", "counting", "max_overlap"):
            if not 0 <= getattr(self, name) <= 1:
                raise InvalidRequest(f"threshold {name} is {getattr(self, name)}, expected 0 to 1")
        if self.max_objects < 1:
            raise InvalidRequest(f"max_objects is {self.max_objects}, expected 1 or more")
        if not self.position >= 0:
            raise InvalidRequest(f"threshold position is {self.position}, expected 0 or more")


DEFAULT_THRESHOLDS = Thresholds()


@dataclass(frozen=True)
class GenEvalVerdict:
    """Result of the rules: `reason` has one line per failed clause, `kept` the detections that counted, by class."""

    correct: bool
    reason: str
    kept: Mapping[str, Sequence[Detection]]


def evaluate_image(
    detections: Sequence[Detection], metadata: PromptMetadata, thresholds: Thresholds = DEFAULT_THRESHOLDS
) -> GenEvalVerdict:
    """Decide whether an image with these detections shows what the prompt asks for."""
    kept = keep_detections(detections, metadata, thresholds)
    failures = [*_include_failures(kept, metadata, thresholds.position), *_exclude_failures(kept, metadata)]
    return GenEvalVerdict(not failures, "\n".join(failures), kept)


def keep_detections(
    detections: Sequence[Detection], metadata: PromptMetadata, thresholds: Thresholds = DEFAULT_THRESHOLDS
) -> dict[str, list[Detection]]:
    """Return the detections that count, by class, most confident first; ties keep their order."""
    counting = metadata.tag == "counting"
    # GenEval compares in float32, where a stored 0.3 is not above the threshold 0.3.
    threshold = np.float32(thresholds.counting if counting else thresholds.detection)
    sure = [detection for detection in detections if np.float32(detection.confidence) > threshold]
    by_class: dict[str, list[Detection]] = {}
    for detection in sorted(sure, key=lambda found: -found.confidence):
        by_class.setdefault(detection.class_name, []).append(detection)
    return {
        name: _without_overlaps(found[: thresholds.max_objects], thresholds.max_overlap)
        for name, found in by_class.items()
    }


def _without_overlaps(found: list[Detection], max_overlap: float) -> list[Detection]:
    kept: list[Detection] = []
    for detection in found:
        if max_overlap == 1 or all(box_iou(better.box, detection.box) < max_overlap for better in kept):
            kept.append(detection)
    return kept


Group = Sequence[Detection] | None
"""The objects that fulfilled an include clause, or None where it failed."""


def _include_failures(
    kept: Mapping[str, Sequence[Detection]], metadata: PromptMetadata, position_threshold: float
) -> Iterator[str]:
    groups: list[Group] = []
    for required in metadata.include:
        found = kept.get(required.class_name, [])[: required.count]
        failure = (
            _count_failure(required, found)
            or _color_failure(required, found)
            or _position_failure(required, found, groups, position_threshold)
        )
        groups.append(None if failure else found)
        if failure:
            yield failure


def _exclude_failures(kept: Mapping[str, Sequence[Detection]], metadata: PromptMetadata) -> Iterator[str]:
    for excluded in metadata.exclude:
        found = len(kept.get(excluded.class_name, []))
        if found >= excluded.count:
            yield f"expected {excluded.class_name}<{excluded.count}, found {found}"


def _count_failure(required: IncludedObject, found: Sequence[Detection]) -> str | None:
    if len(found) >= required.count:
        return None
    return f"expected {required.class_name}>={required.count}, found {len(found)}"


def _color_failure(required: IncludedObject, found: Sequence[Detection]) -> str | None:
    seen = [detection.color for detection in found]
    if required.color is None or seen.count(required.color) >= required.count:
        return None
    tally = ", ".join(f"{seen.count(color)} {color}" for color in COLORS if color in seen)
    return (
        f"expected {required.color} {required.class_name}>={required.count}, "
        f"found {seen.count(required.color)} {required.color}; and {tally}"
    )


def _position_failure(
    required: IncludedObject, found: Sequence[Detection], groups: Sequence[Group], threshold: float
) -> str | None:
    if required.position is None:
        return None
    relation, target = required.position
    targets = groups[target]
    if targets is None:
        return f"no target for {required.class_name} to be {relation}"
    for detection in found:
        for other in targets:
            seen = relative_position(detection.box, other.box, threshold)
            if relation not in seen:
                named = " and ".join(name for name in RELATIONS if name in seen)
                return f"expected {required.class_name} {relation} target, found {named} target"
    return None
