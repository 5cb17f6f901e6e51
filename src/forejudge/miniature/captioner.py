"""Says in plain words what a picture of the miniature world shows: what the detector finds in it, not what was asked.

Objects are named in reading order, equal ones together. An object that the detector hesitates about is called unclear
or faint; what it takes for none is left out.
"""

import hashlib
import random
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import permutations

from PIL.Image import Image

from forejudge.evaluators.geneval_rules import Detection, relative_position
from forejudge.evaluators.image_text_to_text import Captioner
from forejudge.miniature.detector import detect
from forejudge.miniature.scenes import IMAGE_SIZE
from forejudge.prompts.geneval import NUMBER_WORDS, plural, with_article

CAPTION_WORDS: tuple[str, ...] = (
    "at", "can", "clear", "colour", "empty", "faint", "five", "here", "is", "lower", "many", "no", "nothing", "one",
    "picture", "see", "shows", "six", "the", "there", "this", "to", "unclear", "upper", "you",
)  # fmt: skip
"""What captions say beyond kinds, colours and the words of prompts."""

_SEEN, _CLEAR = 0.3, 0.9  # the detector's confidence in an object one hesitates about, and in one that is plain
_MOST_WORDS = 40  # in a sentence that says where everything stands
_POSITION_THRESHOLD = 0.1  # GenEval's
_NUMBERS = {1: "one", **NUMBER_WORDS, 5: "five", 6: "six"}
_OPENINGS = ("", "this shows ", "a picture of ", "a photo of ", "you can see ")
_NOTHING = (
    "nothing clear.", "this shows nothing clear.", "there is nothing clear to see.", "you can see nothing clear here.",
    "an empty picture, nothing clear.",
)  # fmt: skip


class MiniatureCaptioner(Captioner):
    """Captions from the detector; equal pictures get equal captions."""

    name = "miniature"

    def __call__(self, pictures: Sequence[Image]) -> list[str]:
        """See `Captioner`."""
        return [caption_of(detect(picture), _source_of(picture)) for picture in pictures]


def caption_of(detections: Sequence[Detection], source: random.Random) -> str:
    """A sentence that names every object with a confidence above 0.3; `source` chooses its wording.

    Boxes are in pixels of the world's 64 px pictures.
    """
    seen = sorted((found for found in detections if found.confidence > _SEEN), key=_reading_order)
    if not seen:
        return source.choice(_NOTHING)
    groups = _grouped(seen)
    choices = [pattern(groups, source) for pattern in (_placed, _placed, _by_place, _related, _counted, _bare)]
    short = [choice for choice in choices if choice and len(choice.split()) <= _MOST_WORDS]
    return f"{source.choice(short or [_bare(groups, source)])}."


@dataclass(frozen=True)
class _Group:
    """Objects of one kind and colour, all of them clear or none."""

    kind: str
    colour: str | None
    is_clear: bool
    objects: tuple[Detection, ...]

    def named(self, source: random.Random) -> str:
        """Such as "two faint red stars"."""
        count = len(self.objects)
        quality = "" if self.is_clear else source.choice(("unclear ", "faint "))
        colour = f"{self.colour} " if self.colour else ""
        noun = f"{quality}{colour}{self.kind if count == 1 else plural(self.kind)}"
        named = with_article(noun) if count == 1 else f"{_number(count)} {noun}"
        return named if self.colour else f"{named} of no clear colour"

    @property
    def place(self) -> str:
        """Such as "at the upper left and the lower right"."""
        return f"at {_joined([f'the {quadrant}' for quadrant in dict.fromkeys(map(_quadrant, self.objects))])}"


def _placed(groups: list[_Group], source: random.Random) -> str:
    return source.choice(_OPENINGS) + _joined([f"{group.named(source)} {group.place}" for group in groups])


def _by_place(groups: list[_Group], source: random.Random) -> str:
    return _joined([f"{group.place} {group.named(source)}" for group in groups])


def _bare(groups: list[_Group], source: random.Random) -> str:
    return source.choice(_OPENINGS) + _joined([group.named(source) for group in groups])


def _related(groups: list[_Group], source: random.Random) -> str | None:
    """How one object stands to another, and where the others are; None where no two are related."""
    alone = [group for group in groups if len(group.objects) == 1]
    related = [
        (one, relation, other)
        for one, other in permutations(alone, 2)
        for relation in sorted(relative_position(one.objects[0].box, other.objects[0].box, _POSITION_THRESHOLD))
    ]
    if not related:
        return None
    one, relation, other = source.choice(related)
    said = [f"{one.named(source)} {relation} {other.named(source)}"]
    others = [f"{group.named(source)} {group.place}" for group in groups if group not in (one, other)]
    return source.choice(_OPENINGS) + ", and ".join(said + ([_joined(others)] if others else []))


def _counted(groups: list[_Group], source: random.Random) -> str | None:
    """How many clear objects of one kind in all, then each colour; None where they are of one colour or many kinds."""
    clear = [group for group in groups if group.is_clear]
    if len(clear) < 2 or len({group.kind for group in clear}) > 1:
        return None
    total = f"{_number(sum(len(group.objects) for group in clear))} {plural(clear[0].kind)}"
    parts = [f"{_number(len(each.objects))} {each.colour or 'of no clear colour'} {each.place}" for each in clear]
    others = [f"{group.named(source)} {group.place}" for group in groups if not group.is_clear]
    said = f"{source.choice(_OPENINGS)}{total}, {_joined(parts)}"
    return f"{said}, and {_joined(others)}" if others else said


def _grouped(seen: list[Detection]) -> list[_Group]:
    """Equal objects together, in the order in which the first of each is read."""
    equal: dict[tuple[str, str | None, bool], list[Detection]] = {}
    for found in seen:
        equal.setdefault((found.class_name, found.color, found.confidence > _CLEAR), []).append(found)
    return [_Group(*key, tuple(objects)) for key, objects in equal.items()]


def _quadrant(found: Detection) -> str:
    x0, y0, x1, y1 = found.box
    return f"{'upper' if y0 + y1 < IMAGE_SIZE else 'lower'} {'left' if x0 + x1 < IMAGE_SIZE else 'right'}"


def _reading_order(found: Detection) -> tuple[bool, float]:
    return _quadrant(found).startswith("lower"), found.box[0]


def _number(count: int) -> str:
    return _NUMBERS.get(count, "many")


def _joined(parts: list[str]) -> str:
    return " and ".join([*filter(None, [", ".join(parts[:-1])]), parts[-1]])


def _source_of(picture: Image) -> random.Random:
    pixels = picture.convert("RGB").tobytes()
    return random.Random(int.from_bytes(hashlib.sha256(pixels).digest()))
