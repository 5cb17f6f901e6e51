"""Prompts of GenEval's six tasks over any objects, worded as GenEval words them: none twice, none of those excluded."""

import random
import string
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, islice, permutations, zip_longest

from forejudge.errors import InvalidRequest
from forejudge.evaluation.description import NUMBER_WORDS, Description, Wanted
from forejudge.evaluation.metadata import COLORS, RELATIONS, TASKS, Color, PromptMetadata, Relation, Task


@dataclass(frozen=True)
class _Detail:
    """What a prompt says of the objects it names: the color of each, how many there are, how they stand."""

    colors: tuple[Color | None, ...] = (None, None)
    count: int = 1
    relation: Relation | None = None


_DETAILS: dict[Task, list[_Detail]] = {
    "single_object": [_Detail()],
    "two_object": [_Detail()],
    "counting": [_Detail(count=count) for count in NUMBER_WORDS],
    "colors": [_Detail(colors=(color,)) for color in COLORS],
    "position": [_Detail(relation=relation) for relation in RELATIONS],
    "color_attr": [_Detail(colors=pair) for pair in permutations(COLORS, 2)],
}
_NAMING_TWO: frozenset[Task] = frozenset({"two_object", "position", "color_attr"})
_NAMING_COLORS: frozenset[Task] = frozenset({"colors", "color_attr"})
_NEVER_COLORED = "person"


def sample_prompts(objects: Sequence[str], count: int, seed: int, excluded: Iterable[str] = ()) -> list[PromptMetadata]:
    """`count` prompts (at least 1), the tasks in turn until they have none left; more begin with those of fewer.

    `objects` are class names; one that comes again is passed over. No two prompts and none of the `excluded` ones
    have the same `normalised_text`. The same objects, excluded prompts and seed give the same prompts.
    Raises InvalidRequest without objects, and where they do not give `count` prompts.
    """
    names = list(dict.fromkeys(objects))
    if not names:
        raise InvalidRequest("the list of objects is empty: expected at least one class name")
    taken = {normalised_text(prompt) for prompt in excluded}
    tasks = [_untaken(_shuffled_prompts(tag, names, random.Random(f"{seed} {tag}")), taken) for tag in TASKS]
    found = list(islice(filter(None, chain.from_iterable(zip_longest(*tasks))), count))
    if len(found) < count:
        raise InvalidRequest(
            f"{count} prompts were asked for, but {len(names)} objects give {len(found)} that are distinct and "
            "not excluded: ask for fewer, or name more objects"
        )
    return [description.metadata for description in found]


def normalised_text(prompt: str) -> str:
    """What is left where case, the width of blanks and punctuation at the end do not count."""
    return " ".join(prompt.casefold().split()).rstrip(string.punctuation + " ")


def _untaken(descriptions: Iterable[Description], taken: set[str]) -> Iterator[Description]:
    """Those whose text is not in `taken`, to which each adds its own."""
    for description in descriptions:
        text = normalised_text(description.prompt)
        if text not in taken:
            taken.add(text)
            yield description


def _shuffled_prompts(tag: Task, names: list[str], source: random.Random) -> Iterator[Description]:
    """All prompts of a task."""
    if tag in _NAMING_COLORS:
        names = [name for name in names if name != _NEVER_COLORED]
    objects, details = list(permutations(names, 2 if tag in _NAMING_TWO else 1)), _DETAILS[tag]
    for number in _shuffled(len(objects) * len(details), source):
        named, detail = objects[number // len(details)], details[number % len(details)]
        wanted = tuple(Wanted(name, color) for name, color in zip(named, detail.colors, strict=False))
        yield Description(tag, wanted, detail.count, detail.relation)


def _shuffled(size: int, source: random.Random) -> Iterator[int]:
    """The numbers below `size` in random order, each drawn when it is asked for: a task has millions of prompts.

    It is the shuffle of Fisher and Yates with only those places written down that were exchanged.
    """
    moved: dict[int, int] = {}
    for last in reversed(range(size)):
        drawn = source.randint(0, last)
        yield moved.get(drawn, drawn)
        moved[drawn] = moved.pop(last, last)
