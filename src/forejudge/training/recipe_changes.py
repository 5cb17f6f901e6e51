"""Fields of a recipe changed from outside: by options, or one by one."""

import json
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar, cast

from pydantic import BaseModel
from pydantic import ValidationError as PydanticError

from forejudge.errors import InvalidRequest
from forejudge.training.recipe import Chosen, DrawingRecipe, LoraSettings, TrainingRecipe

Drawn = TypeVar("Drawn", bound=DrawingRecipe)


def with_options(kind: type[Drawn], known: Drawn | None, options: Mapping[str, Any]) -> Drawn:
    """A known recipe with options in the place of its fields; None leaves a field as it is. No value is checked.

    Raises InvalidRequest for a field that neither has.
    """
    given = {name: value for name, value in options.items() if value is not None}
    fields = (known.model_dump() if known else {}) | given
    for name, field in kind.model_fields.items():
        if field.is_required() and name not in fields:
            raise InvalidRequest(f"--{name} is missing: name one, or a --recipe that has one")
    return cast(Drawn, kind.model_construct(**fields))


def changed(recipe: Chosen, changes: Sequence[str]) -> Chosen:
    """A recipe with fields changed, each written name=value; a nested field as loss.kind=focal, values as in JSON.

    Raises InvalidRequest for a field it does not have, listing those it has, or a value it cannot take.
    """
    values = recipe.model_dump()
    for change in changes:
        name, equals, text = change.partition("=")
        if not equals:
            raise InvalidRequest(f"--set {change!r}: expected name=value, such as steps=500")
        *parents, field = name.split(".")
        place: Any = values
        for parent in parents:
            place = place.get(parent) if isinstance(place, dict) else None
        if parents == ["lora"] and place is None:
            place = values["lora"] = LoraSettings().model_dump()
        if not isinstance(place, dict) or field not in place:
            raise InvalidRequest(f"--set {change!r}: unknown field; there are {', '.join(_fields(recipe))}")
        place[field] = _value(text)
    try:
        return type(recipe).model_validate(values)
    except PydanticError as error:
        first = error.errors()[0]
        raise InvalidRequest(f"--set {'.'.join(map(str, first['loc']))} = {first['input']}: {first['msg']}") from None


def _fields(recipe: TrainingRecipe) -> list[str]:
    names = []
    for name, value in recipe:
        nested = LoraSettings() if name == "lora" else value
        names += [f"{name}.{inner}" for inner, _ in nested] if isinstance(nested, BaseModel) else [name]
    return names


def _value(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text
