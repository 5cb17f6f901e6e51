"""GenEval's prompts: the metadata that images are evaluated by, the prompt grammar, and sampling of new prompts.

The metadata schema is that of `evaluation_metadata.jsonl` (Ghosh et al., "GenEval", 2023), one JSON line per prompt.
Values that no image could satisfy (an unknown color, relation or target) are refused.
"""

import json
import random
import string
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, islice, permutations, zip_longest
from typing import Annotated, Literal, Self, get_args

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from forejudge.errors import InvalidRequest, validation_messages
from forejudge.options import MAX_COUNT

Task = Literal["single_object", "two_object", "counting", "colors", "position", "color_attr"]
Color = Literal["red", "orange", "yellow", "green", "blue", "purple", "pink", "brown", "black", "white"]
Relation = Literal["left of", "right of", "above", "below"]

TASKS: tuple[Task, ...] = get_args(Task)
"""Tags of the six tasks, in the order of the paper's tables."""
COLORS: tuple[Color, ...] = get_args(Color)
"""The ten colors, in the order of GenEval's evaluator."""
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
    """A class and a count. As an `exclude` clause: fewer than `count` objects of the class may be detected."""

    class_name: str = Field(validation_alias="class", serialization_alias="class", min_length=1)
    count: Annotated[int, Field(strict=True, ge=1, le=MAX_COUNT)]


class IncludedObject(CountedObject):
    """At least `count` objects of the class must be detected; the most confident ones must be as described.

    `position` is (relation, index of the earlier `include` clause it refers to).
    """

    color: Color | None = None
    position: tuple[Relation, Annotated[int, Field(strict=True, ge=0)]] | None = None


class PromptMetadata(_Schema):
    """A prompt and the clauses that its images are evaluated by. Further keys, such as a seed, are ignored.

    Inside a clause they are refused: a misspelled color would be evaluated as no color.
    """

    model_config = ConfigDict(extra="ignore")

    tag: Task
    include: tuple[IncludedObject, ...]
    exclude: Annotated[tuple[CountedObject, ...], BeforeValidator(lambda given: () if given is None else given)] = ()
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
        """Read one line of a metadata file. Raises InvalidRequest naming every problem."""
        try:
            return cls.model_validate_json(line, by_alias=True, by_name=False)
        except ValidationError as error:
            problems = "; ".join(validation_messages(error))
            raise InvalidRequest(
                f"not a GenEval metadata line: {problems}; expected tag, include and prompt, "
                f"got {_shortened(' '.join(line.split())) or 'an empty line'}"
            ) from error

    def to_line(self) -> str:
        """Return the metadata line as GenEval's own file spells it, without a line end."""
        return json.dumps(self.model_dump(mode="json", exclude_defaults=True))


def _shortened(line: str, length: int = 120) -> str:
    return line if len(line) <= length else line[: length - 3] + "..."


NUMBER_WORDS = {2: "two", 3: "three", 4: "four"}


def with_article(noun: str) -> str:
    """Return a noun with its indefinite article."""
    vowel_sound = noun[0] in "aeiou" or noun == "hourglass"  # its h is silent
    return f"{'an' if vowel_sound else 'a'} {noun}"


def plural(kind: str) -> str:
    """Return the plural of a noun by GenEval's rule, which also makes "benchs" and "sheeps"."""
    return f"{kind}es" if kind.endswith("s") else f"{kind}s"


@dataclass(frozen=True)
class DescribedObject:
    """A kind of object that a prompt names, with its color if it names one."""

    kind: str
    color: Color | None = None

    def __str__(self) -> str:
        return f"{self.color} {self.kind}" if self.color else self.kind


@dataclass(frozen=True)
class Description:
    """A prompt's content before it is worded. `relation` is the first object's place relative to the second."""

    tag: Task
    objects: tuple[DescribedObject, ...]
    count: int = 1
    relation: Relation | None = None

    @property
    def prompt(self) -> str:
        if self.count > 1:
            return f"a photo of {NUMBER_WORDS[self.count]} {plural(self.objects[0].kind)}"
        nouns = [with_article(str(item)) for item in self.objects]
        return "a photo of " + f" {self.relation or 'and'} ".join(nouns)

    @property
    def metadata(self) -> PromptMetadata:
        """The prompt's metadata in GenEval's schema."""
        include = [self._included(item) for item in self.objects]
        if self.relation:
            include.reverse()
            include[1] = include[1].model_copy(update={"position": (self.relation, 0)})
        one_more = CountedObject(class_name=self.objects[0].kind, count=self.count + 1)
        return PromptMetadata(
            tag=self.tag,
            include=tuple(include),
            exclude=(one_more,) if self.count > 1 else (),
            prompt=self.prompt,
        )

    def _included(self, item: DescribedObject) -> IncludedObject:
        return IncludedObject(class_name=item.kind, count=self.count, color=item.color)


@dataclass(frozen=True)
class _Detail:
    """Attributes of the objects a prompt names: the color of each, their count, their relation."""

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
_MIRRORED = ((" left of ", " right of "), (" above ", " below "))


def sample_prompts(objects: Sequence[str], count: int, seed: int, excluded: Iterable[str] = ()) -> list[PromptMetadata]:
    """Sample `count` prompts over `objects` (class names), taking the tasks in turn until each is exhausted.

    A larger `count` extends the prompts of a smaller one. No two prompts have the same `normalized_text`, and no prompt
    asks for the same as an `excluded` one, see `prompt_content`. Raises InvalidRequest without objects, and where they
    give fewer than `count` prompts.
    """
    names = list(dict.fromkeys(objects))
    if not names:
        raise InvalidRequest("the list of objects is empty: expected at least one class name")
    left_out, taken = set(map(prompt_content, excluded)), set[str]()
    tasks = [_untaken(_shuffled_prompts(tag, names, random.Random(f"{seed} {tag}")), taken, left_out) for tag in TASKS]
    found = list(islice(filter(None, chain.from_iterable(zip_longest(*tasks))), count))
    if len(found) < count:
        raise InvalidRequest(
            f"count = {count}: {len(names)} objects give only {len(found)} prompts that are distinct and not excluded: "
            "ask for fewer, or name more objects"
        )
    return [description.metadata for description in found]


def normalized_text(prompt: str) -> str:
    """Return a prompt without differences of case, white space and final punctuation."""
    return " ".join(prompt.casefold().split()).rstrip(string.punctuation + " ")


def prompt_content(prompt: str) -> str:
    """Return a text that is equal for prompts that ask for the same, in GenEval's grammar.

    "a cat and a dog" is "a dog and a cat", and "a cat left of a dog" is "a dog right of a cat".
    """
    text = normalized_text(prompt).removeprefix("a photo of ")
    for relation, mirrored in _MIRRORED:
        one, found, other = text.partition(mirrored)
        text = f"{other}{relation}{one}" if found else text
    return " and ".join(sorted(text.split(" and ")))


def _untaken(descriptions: Iterable[Description], taken: set[str], left_out: set[str]) -> Iterator[Description]:
    """Yield the descriptions whose text is not in `taken` nor their content in `left_out`, and add their texts."""
    for description in descriptions:
        text = normalized_text(description.prompt)
        if text not in taken and prompt_content(text) not in left_out:
            taken.add(text)
            yield description


def _shuffled_prompts(tag: Task, names: list[str], source: random.Random) -> Iterator[Description]:
    """Yield all prompts of a task in random order."""
    if tag in _NAMING_COLORS:
        names = [name for name in names if name != _NEVER_COLORED]
    objects, details = list(permutations(names, 2 if tag in _NAMING_TWO else 1)), _DETAILS[tag]
    for number in _shuffled(len(objects) * len(details), source):
        named, detail = objects[number // len(details)], details[number % len(details)]
        wanted = tuple(DescribedObject(name, color) for name, color in zip(named, detail.colors, strict=False))
        yield Description(tag, wanted, detail.count, detail.relation)


def _shuffled(size: int, source: random.Random) -> Iterator[int]:
    """Yield the numbers below `size` in random order, lazily: a task has millions of prompts.

    A Fisher-Yates shuffle that stores only the places that were exchanged.
    """
    moved: dict[int, int] = {}
    for last in reversed(range(size)):
        place = source.randint(0, last)
        yield moved.get(place, place)
        moved[place] = moved.pop(last, last)
