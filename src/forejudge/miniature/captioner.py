"""Captioner of the miniature world: the detections of an image in words.

Objects are named in reading order, equal ones together. An object of low confidence is called unclear or faint; one
below the detection threshold is left out. The wording is fixed: language model and verifier were trained on it.
"""

import hashlib
import random
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import permutations

from PIL.Image import Image

from forejudge.evaluators.base import Captioner
from forejudge.evaluators.geneval_rules import Detection, relative_position
from forejudge.miniature.detector import detect
from forejudge.miniature.scenes import IMAGE_SIZE
from forejudge.prompts.geneval import NUMBER_WORDS, plural, with_article

CAPTION_WORDS: tuple[str, ...] = (
    "at", "can", "clear", "colour", "empty", "faint", "five", "here", "is", "lower", "many", "no", "nothing", "one",
    "picture", "see", "shows", "six", "the", "there", "this", "to", "unclear", "upper", "you",  # vocabulary
)  # fmt: skip
"""Words of captions beyond kinds, colors and the words of prompts."""

_MIN_CONFIDENCE, _CLEAR_CONFIDENCE = 0.3, 0.9  # of an object that is named at all, and of one named as clear
_MAX_WORDS = 40  # in a sentence with the location of every object
_POSITION_THRESHOLD = 0.1  # GenEval's
_NUMBERS = {1: "one", **NUMBER_WORDS, 5: "five", 6: "six"}
_OPENINGS = ("", "this shows ", "a picture of ", "a photo of ", "you can see ")  # trained vocabulary
_EMPTY_CAPTIONS = (
    "nothing clear.", "this shows nothing clear.", "there is nothing clear to see.", "you can see nothing clear here.",
    "an empty picture, nothing clear.",  # trained vocabulary
)  # fmt: skip


class MiniatureCaptioner(Captioner):
    """Captions from the detector; equal images get equal captions."""

    name = "miniature"

    def __call__(self, images: Sequence[Image]) -> list[str]:
        """See `Captioner.__call__`."""
        return [caption_from_detections(detect(image), _image_rng(image)) for image in images]


def caption_from_detections(detections: Sequence[Detection], rng: random.Random) -> str:
    """Name every object with a confidence above 0.3 in one sentence, worded by `rng`.

    Boxes are in pixels of 64 px images.
    """
    visible = sorted(
        (detection for detection in detections if detection.confidence > _MIN_CONFIDENCE), key=_reading_order
    )
    if not visible:
        return rng.choice(_EMPTY_CAPTIONS)
    groups = _group_equal(visible)
    choices = [
        pattern(groups, rng)
        for pattern in (
            _objects_with_locations,
            _objects_with_locations,
            _locations_first,
            _relation_sentence,
            _count_sentence,
            _objects_only,
        )
    ]
    short = [choice for choice in choices if choice and len(choice.split()) <= _MAX_WORDS]
    return f"{rng.choice(short or [_objects_only(groups, rng)])}."


@dataclass(frozen=True)
class _Group:
    """Objects of one kind and color, all of them clear or none."""

    kind: str
    color: str | None
    is_clear: bool
    objects: tuple[Detection, ...]

    def noun_phrase(self, rng: random.Random) -> str:
        """Return a noun phrase such as "two faint red stars"."""
        count = len(self.objects)
        quality = "" if self.is_clear else rng.choice(("unclear ", "faint "))
        color = f"{self.color} " if self.color else ""
        noun = f"{quality}{color}{self.kind if count == 1 else plural(self.kind)}"
        noun_phrase = with_article(noun) if count == 1 else f"{_number_word(count)} {noun}"
        return noun_phrase if self.color else f"{noun_phrase} of no clear colour"

    @property
    def location(self) -> str:
        """Phrase such as "at the upper left and the lower right"."""
        return f"at {_join([f'the {quadrant}' for quadrant in dict.fromkeys(map(_quadrant, self.objects))])}"


def _objects_with_locations(groups: list[_Group], rng: random.Random) -> str:
    return rng.choice(_OPENINGS) + _join([f"{group.noun_phrase(rng)} {group.location}" for group in groups])


def _locations_first(groups: list[_Group], rng: random.Random) -> str:
    return _join([f"{group.location} {group.noun_phrase(rng)}" for group in groups])


def _objects_only(groups: list[_Group], rng: random.Random) -> str:
    return rng.choice(_OPENINGS) + _join([group.noun_phrase(rng) for group in groups])


def _relation_sentence(groups: list[_Group], rng: random.Random) -> str | None:
    """Relate one object to another and locate the others; None where no two are related."""
    singles = [group for group in groups if len(group.objects) == 1]
    related = [
        (one, relation, other)
        for one, other in permutations(singles, 2)
        for relation in sorted(relative_position(one.objects[0].box, other.objects[0].box, _POSITION_THRESHOLD))
    ]
    if not related:
        return None
    one, relation, other = rng.choice(related)
    sentence = [f"{one.noun_phrase(rng)} {relation} {other.noun_phrase(rng)}"]
    others = [f"{group.noun_phrase(rng)} {group.location}" for group in groups if group not in (one, other)]
    return rng.choice(_OPENINGS) + ", and ".join(sentence + ([_join(others)] if others else []))


def _count_sentence(groups: list[_Group], rng: random.Random) -> str | None:
    """Count the clear objects of one kind, in all and by color; None where they are of one color or of many kinds."""
    clear = [group for group in groups if group.is_clear]
    if len(clear) < 2 or len({group.kind for group in clear}) > 1:
        return None
    total = f"{_number_word(sum(len(group.objects) for group in clear))} {plural(clear[0].kind)}"
    parts = [
        f"{_number_word(len(each.objects))} {each.color or 'of no clear colour'} {each.location}" for each in clear
    ]
    others = [f"{group.noun_phrase(rng)} {group.location}" for group in groups if not group.is_clear]
    sentence = f"{rng.choice(_OPENINGS)}{total}, {_join(parts)}"
    return f"{sentence}, and {_join(others)}" if others else sentence


def _group_equal(visible: list[Detection]) -> list[_Group]:
    """Group equal objects, in the reading order of the first of each group."""
    equal: dict[tuple[str, str | None, bool], list[Detection]] = {}
    for detection in visible:
        equal.setdefault((detection.class_name, detection.color, detection.confidence > _CLEAR_CONFIDENCE), []).append(
            detection
        )
    return [_Group(*key, tuple(objects)) for key, objects in equal.items()]


def _quadrant(detection: Detection) -> str:
    x0, y0, x1, y1 = detection.box
    return f"{'upper' if y0 + y1 < IMAGE_SIZE else 'lower'} {'left' if x0 + x1 < IMAGE_SIZE else 'right'}"


def _reading_order(detection: Detection) -> tuple[bool, float]:
    return _quadrant(detection).startswith("lower"), detection.box[0]


def _number_word(count: int) -> str:
    return _NUMBERS.get(count, "many")


def _join(parts: list[str]) -> str:
    return " and ".join([*filter(None, [", ".join(parts[:-1])]), parts[-1]])


def _image_rng(image: Image) -> random.Random:
    pixels = image.convert("RGB").tobytes()
    return random.Random(int.from_bytes(hashlib.sha256(pixels).digest()))
