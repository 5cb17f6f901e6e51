"""GenEval's prompt metadata: what a picture of a prompt must and must not show, one JSON line each.

The schema is that of `evaluation_metadata.jsonl` (Ghosh et al., "GenEval", 2023). Values that no
picture could fulfil (an unknown color, relation or target) are refused here.
"""

import json
from collections.abc import Sequence
from typing import Annotated, Literal, Self, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from forejudge.errors import InvalidRequest

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
            problems = "; ".join(_problem(detail["loc"], detail["msg"]) for detail in error.errors())
            raise InvalidRequest(
                f"not a GenEval metadata line: {problems}; expected tag, include and prompt, "
                f"got {_shortened(' '.join(line.split())) or 'an empty line'}"
            ) from error

    def to_line(self) -> str:
        """The metadata line, spelled as GenEval's own file spells it, without a line end."""
        return json.dumps(self.model_dump(mode="json", exclude_defaults=True))


def _problem(location: Sequence[int | str], message: str) -> str:
    where = ".".join(str(part) for part in location)
    message = message.removeprefix("Value error, ")
    return f"{where}: {message}" if where else message


def _shortened(line: str, length: int = 120) -> str:
    return line if len(line) <= length else line[: length - 3] + "..."
