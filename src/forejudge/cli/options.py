"""Command-line options: derived from the library's option models, and those that several commands share."""

import inspect
import re
from collections.abc import Callable, Iterator
from functools import wraps
from operator import getitem
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo
from typer import Option

from forejudge.errors import InvalidRequest
from forejudge.options import MAX_COUNT, ModelOptions, SamplingParams, SearchOptions, parse_options

OpenSplit = Literal["training", "validation"]  # the test split is the benchmark's

OUTPUT_PANEL = "Output"
_PANELS: dict[type[BaseModel], str] = {
    SearchOptions: "Search",
    SamplingParams: "Sampling",
    ModelOptions: "Models",
}
_FLAGS = {"compiled": "--compile"}
_WHOLE_NUMBER = re.compile(r"\s*-?\d{1,100}\s*")
_NOT_OFFERED = {"image_index"}  # --images-per-prompt counts them


def expand_options(command: Callable[..., None]) -> Callable[..., None]:
    """Replace each parameter of a command that is a pydantic model with one option for each field of the model.

    The command receives the validated model, in which only the fields that the user gave are set. A wrong value
    raises InvalidRequest.
    """
    signature = inspect.signature(command)
    models = {name: found.annotation for name, found in signature.parameters.items() if _is_model(found.annotation)}
    parameters: list[inspect.Parameter] = []
    for name, parameter in signature.parameters.items():
        parameters += _field_parameters(models[name]) if name in models else [parameter]

    @wraps(command)
    def expanded(**values: Any) -> None:
        built = {name: _build(model, values) for name, model in models.items()}
        command(**{name: built[name] if name in models else values[name] for name in signature.parameters})

    expanded.__dict__["__signature__"] = signature.replace(parameters=parameters)
    expanded.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return expanded


def field_option(model: type[BaseModel], name: str) -> Any:
    """Return the typer option of one field, named, described and grouped as the model says."""
    field = model.model_fields[name]
    annotation = _without_none(field.annotation)
    choices = [choice for choice in get_args(annotation) if isinstance(choice, str)]
    metavar = "N,N,..." if get_origin(annotation) is tuple else "|".join(choices) or None
    flag = _FLAGS.get(name, f"--{name.replace('_', '-')}")
    return Option(flag, help=_help(field), metavar=metavar, show_default=False, rich_help_panel=_PANELS[model])


def _help(field: FieldInfo) -> str:
    """Describe a field with its default, unless it has none or the description says it."""
    text = field.description or ""
    has_default = field.default is not None and field.default is not False
    return f"{text.rstrip('.')} (default: {field.default})." if has_default and "(default" not in text else text


def _field_parameters(model: type[BaseModel]) -> Iterator[inspect.Parameter]:
    for name, field in model.model_fields.items():
        annotation = _without_none(field.annotation)
        if _is_model(annotation):
            yield from _field_parameters(annotation)
        elif name not in _NOT_OFFERED:
            value: Any = annotation if annotation in (int, float, bool) else str
            annotated = getitem(Annotated, (value | None, field_option(model, name)))
            yield inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=annotated)


def _build(model: type[BaseModel], values: dict[str, Any]) -> BaseModel:
    """Build a model from the values that were given; nested models likewise, if any of their values was."""
    given: dict[str, Any] = {}
    for name, field in model.model_fields.items():
        annotation = _without_none(field.annotation)
        if _is_model(annotation):
            nested = _build(annotation, values)
            given |= {name: nested} if nested.model_fields_set else {}
        elif values.get(name) is not None:
            given[name] = _parse_list(values[name]) if get_origin(annotation) is tuple else values[name]
    return parse_options(model, given)


def _parse_list(text: str) -> list[int | str]:
    """Split "1,2" into numbers; what is no whole number stays text, for the model to refuse."""
    return [int(part) if _WHOLE_NUMBER.fullmatch(part) else part for part in text.split(",")]


def _is_model(annotation: Any) -> bool:
    return inspect.isclass(annotation) and issubclass(annotation, BaseModel)


def _without_none(annotation: Any) -> Any:
    """Return T for T | None."""
    if get_origin(annotation) not in (Union, UnionType):
        return annotation
    return next(member for member in get_args(annotation) if member is not NoneType)


def parse_ints(option: str, text: str, maximum: int = MAX_COUNT) -> list[int]:
    """Parse "1,2,4" into sorted distinct numbers. Raises InvalidRequest unless all are from 1 to `maximum`."""
    try:
        numbers = sorted({int(part) for part in text.split(",")})
    except ValueError:
        numbers = []
    if not numbers or numbers[0] < 1 or numbers[-1] > maximum:
        raise InvalidRequest(f"{option} {text!r} is not a list of numbers from 1 to {maximum}, such as 1,2,4,8")
    return numbers


def parse_shares(option: str, text: str) -> list[float]:
    """Parse "0.5,0.9" into sorted distinct numbers. Raises InvalidRequest unless all are from 0 to 1."""
    try:
        numbers = sorted({float(part) for part in text.split(",")})
    except ValueError:
        numbers = []
    if not numbers or not all(0 <= number <= 1 for number in numbers):
        raise InvalidRequest(f"{option} {text!r} is not a list of numbers from 0 to 1, such as 0.5,0.9")
    return numbers


Device = Annotated[str | None, field_option(ModelOptions, "device")]
Dtype = Annotated[str | None, field_option(ModelOptions, "dtype")]
AsJson = Annotated[
    bool, Option("--json", help="Print the result as JSON and nothing else.", rich_help_panel=OUTPUT_PANEL)
]

_EVALUATOR = (
    "Evaluator: geneval, geneval-miniature, vqa:MODEL (an image-text-to-text model, a folder or hub id, asked whether "
    "an image shows its prompt), classifier-miniature:FOLDER (of a build of the miniature), or a command. A command "
    "reads JSON lines with image (a path), prompt and metadata from stdin, and answers each with a JSON line that has "
    "correct (true or false) and may have reason and detections"
)
Evaluator = Annotated[str, Option(metavar="NAME|COMMAND", help=f"{_EVALUATOR}.")]
RecipeEvaluator = Annotated[
    str | None, Option("--evaluator", metavar="NAME|COMMAND", help=f"{_EVALUATOR} (default: the recipe's).")
]
OptionalEvaluator = Annotated[
    str | None, Option("--evaluator", metavar="NAME|COMMAND", help=f"{_EVALUATOR} (default: the benchmark's own).")
]
SecondEvaluators = Annotated[
    list[str] | None,
    Option(
        "--second-evaluator",
        metavar="NAME|COMMAND",
        help="Another evaluator of the same images, named as for --evaluator; repeatable. Its figures are listed "
        "beside those of the first.",
    ),
]
Detector = Annotated[
    str | None,
    Option(
        metavar="DIR",
        help="Detector of geneval, made by `forejudge geneval convert-detector`. Another Mask2Former, a folder or hub "
        "id, gives figures that are not comparable.",
    ),
]
ColorModel = Annotated[
    str | None,
    Option(metavar="DIR|ID", help="CLIP that names colors for geneval (default: openai/clip-vit-large-patch14)."),
]
