"""Prompts of GenEval's six tasks over any objects, worded as GenEval words them: none twice, none of those excluded."""

import json
import random
import string
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, islice, permutations, zip_longest
from typing import Annotated, Literal, Self, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from forejudge.errors import InvalidRequest, validation_messages

# FOLDED: GenEval's prompt metadata: what a picture of a prompt must and must not show, one JSON line each.
#
# The schema is that of `evaluation_metadata.jsonl` (Ghosh et al., "GenEval", 2023). Values that no
# picture could fulfil (an unknown color, relation or target) are refused here.


Task = Literal["single_object", "two_object", "counting", "colors", "position", "color_attr"]
Color = Literal["red", "orange", "yellow", "green", "blue", "purple", "pink", "brown", "black", "white"]
Relation = Literal["left of", "right of", "above", "below"]

TASKS: tuple[Task, ...] = get_args(Task)
"""The six tags, in the order of the tables of the paper."""
COLORS: tuple[Color, ...] = get_args(Color)
"""The ten colors, in the order in which GenEval's evaluator lists them."""
RELATIONS: tuple[Relation, ...] = get_args(Relation)


class _Schema(BaseModel):
    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        validate_by_name=True,
        validate_by_alias=True,
        serialize_by_alias=True,
    )


class CountedObject(_Schema):
    """A class and a number: as an `exclude` clause, fewer than `count` of the class may be seen."""

    class_name: str = Field(validation_alias="class", serialization_alias="class", min_length=1)
    count: Annotated[int, Field(strict=True, ge=1)]


class IncludedObject(CountedObject):
    """At least `count` of the class must be seen, the most confident ones as described.

    `position` is (relation, index of an earlier `include` clause): how they stand to those.
    """

    color: Color | None = None
    position: tuple[Relation, Annotated[int, Field(strict=True, ge=0)]] | None = None


class PromptMetadata(_Schema):
    """One prompt of GenEval and what its pictures are judged by."""

    tag: Task
    include: tuple[IncludedObject, ...]
    exclude: tuple[CountedObject, ...] = ()
    prompt: str = Field(min_length=1)

    @model_validator(mode="after")
    def _clauses_fit(self) -> Self:
        if not self.include:
            raise ValueError("include is empty, expected at least one clause")
        for index, required in enumerate(self.include):
            if required.position is not None and required.position[1] >= index:
                raise ValueError(
                    f"include.{index}.position points to clause {required.position[1]}, expected an earlier clause"
                )
        return self

    @classmethod
    def from_line(cls, line: str) -> Self:
        """Read one line of a metadata file; InvalidRequest names all that is wrong with it."""
        try:
            return cls.model_validate_json(line, by_alias=True, by_name=False)
        except ValidationError as error:
            problems = "; ".join(validation_messages(error))
            raise InvalidRequest(
                f"not a GenEval metadata line: {problems}; expected tag, include and prompt, "
                f"got {_shortened(' '.join(line.split())) or 'an empty line'}"
            ) from error

    def to_line(self) -> str:
        """The metadata line, spelled as GenEval's own file spells it, without a line end."""
        return json.dumps(self.model_dump(mode="json", exclude_defaults=True))


def _shortened(line: str, length: int = 120) -> str:
    return line if len(line) <= length else line[: length - 3] + "..."


# FOLDED: What a prompt asks for: its wording as GenEval's generator words it, and its metadata line in GenEval's schema.


NUMBER_WORDS = {2: "two", 3: "three", 4: "four"}


def with_article(noun: str) -> str:
    """A noun as a sentence names it first."""
    vowel_sound = noun[0] in "aeiou" or noun == "hourglass"  # its h is silent
    return f"{'an' if vowel_sound else 'a'} {noun}"


def plural(kind: str) -> str:
    """The word for several objects of a kind by GenEval's rule, which also makes "benchs" and "sheeps"."""
    return f"{kind}es" if kind.endswith("s") else f"{kind}s"


@dataclass(frozen=True)
class Wanted:
    """One kind of object that a prompt names, with its colour if the prompt says one."""

    kind: str
    color: Color | None = None

    def __str__(self) -> str:
        return f"{self.color} {self.kind}" if self.color else self.kind


@dataclass(frozen=True)
class Description:
    """A prompt before it is worded. `relation` says where the first object stands seen from the second."""

    tag: Task
    wanted: tuple[Wanted, ...]
    count: int = 1
    relation: Relation | None = None

    @property
    def prompt(self) -> str:
        if self.count > 1:
            return f"a photo of {NUMBER_WORDS[self.count]} {plural(self.wanted[0].kind)}"
        nouns = [with_article(str(wanted)) for wanted in self.wanted]
        return "a photo of " + f" {self.relation or 'and'} ".join(nouns)

    @property
    def metadata(self) -> PromptMetadata:
        """The prompt's line in GenEval's schema."""
        include = [self._included(wanted) for wanted in self.wanted]
        if self.relation:
            include.reverse()
            include[1] = include[1].model_copy(update={"position": (self.relation, 0)})
        one_more = CountedObject(class_name=self.wanted[0].kind, count=self.count + 1)
        return PromptMetadata(
            tag=self.tag,
            include=tuple(include),
            exclude=(one_more,) if self.count > 1 else (),
            prompt=self.prompt,
        )

    def _included(self, wanted: Wanted) -> IncludedObject:
        return IncludedObject(class_name=wanted.kind, count=self.count, color=wanted.color)


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
    have the same `normalized_text`. The same objects, excluded prompts and seed give the same prompts.
    Raises InvalidRequest without objects, and where they do not give `count` prompts.
    """
    names = list(dict.fromkeys(objects))
    if not names:
        raise InvalidRequest("the list of objects is empty: expected at least one class name")
    taken = {normalized_text(prompt) for prompt in excluded}
    tasks = [_untaken(_shuffled_prompts(tag, names, random.Random(f"{seed} {tag}")), taken) for tag in TASKS]
    found = list(islice(filter(None, chain.from_iterable(zip_longest(*tasks))), count))
    if len(found) < count:
        raise InvalidRequest(
            f"{count} prompts were asked for, but {len(names)} objects give {len(found)} that are distinct and "
            "not excluded: ask for fewer, or name more objects"
        )
    return [description.metadata for description in found]


def normalized_text(prompt: str) -> str:
    """What is left where case, the width of blanks and punctuation at the end do not count."""
    return " ".join(prompt.casefold().split()).rstrip(string.punctuation + " ")


def _untaken(descriptions: Iterable[Description], taken: set[str]) -> Iterator[Description]:
    """Those whose text is not in `taken`, to which each adds its own."""
    for description in descriptions:
        text = normalized_text(description.prompt)
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
