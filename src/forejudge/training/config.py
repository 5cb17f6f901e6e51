"""What a step of the training is: a typed recipe."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, cast

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, NonNegativeInt, PositiveFloat, PositiveInt
from pydantic import ValidationError as PydanticError

from forejudge.checkpoint import named_file
from forejudge.errors import InvalidRequest
from forejudge.training.losses import VerifierLoss
from forejudge.verifiers.inputs import ReadingName
from forejudge.verifiers.question import PICTURE, PUBLISHED_QUESTION, check_question

RECIPE_FILE = "recipe.json"  # in a run's folder
MINIATURE_QUESTION = "<image> does this show {prompt}? answer yes or no"
MINIATURE_INSTRUCTION = "<image> what does this show?"

Chosen = TypeVar("Chosen", bound="TrainingRecipe")


class _Settings(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


def _check_instruction(text: str) -> str:
    if text.count(PICTURE) != 1:
        raise ValueError(f"{text!r} must hold {PICTURE} once")
    return text


class TrainingRecipe(_Settings):
    """What both stages share. A step takes `batch_size` candidates, over all processes and accumulated batches.

    `reads` is spelled as `reading_named` takes it, `vision_tower` and `language_model` are folders or hub ids;
    `spatial_merge_size` as `Connector` takes it. The
    learning rate rises linearly, then falls as a cosine. A run that has not become better for `patience` evaluations
    stops early; the best checkpoint is what is kept.
    """

    reads: ReadingName
    language_model: str
    vision_tower: str | None = None
    spatial_merge_size: PositiveInt = 1
    steps: PositiveInt
    batch_size: PositiveInt
    accumulated_batches: PositiveInt = 1
    learning_rate: PositiveFloat
    warmup_steps: NonNegativeInt
    weight_decay: float = Field(default=0.0, ge=0)
    adam_beta2: float = Field(default=0.999, gt=0, lt=1)
    max_gradient_norm: PositiveFloat = 1.0
    precision: Literal["float32", "bfloat16", "float16"] = "float32"
    gradient_checkpointing: bool = False
    evaluate_every: PositiveInt
    patience: PositiveInt | None = None
    statistics_rows: PositiveInt = 4096
    seed: int = 0
    stored_in: Literal["float32", "bfloat16", "float16"] = "bfloat16"
    tensorboard: bool = False


class AlignRecipe(TrainingRecipe):
    """Stage 1: the connector alone learns to make the language model say a picture's caption.

    `captions` chooses what is to be said: what a captioner says of the picture, or the text it was drawn from.
    """

    instruction: Annotated[str, AfterValidator(_check_instruction)]
    captions: Literal["new", "original"] = "new"


class LoraSettings(_Settings):
    """Low-rank adapters on every linear layer of the language model (Hu et al. 2021), merged when the run is over."""

    rank: PositiveInt = 16
    alpha: PositiveInt = 32
    dropout: float = Field(default=0.0, ge=0, lt=1)


class VerifyRecipe(TrainingRecipe):
    """Stage 2: connector and language model, in full or through `lora`, learn to answer the question.

    With `training_rows` only so many of the labelled candidates are learnt from, the first ones.
    """

    question: Annotated[str, AfterValidator(check_question)] = PUBLISHED_QUESTION
    loss: VerifierLoss = VerifierLoss(kind="class-weighted")
    lora: LoraSettings | None = None
    training_rows: PositiveInt | None = None


class DrawingRecipe(_Settings):
    """What is drawn of every prompt, and what is kept of it: `record` is spelled as in `--record`."""

    generator: str
    candidates: PositiveInt
    record: str | None = None


class LabelRecipe(DrawingRecipe):
    """Candidates that an evaluator judges."""

    candidates: PositiveInt = 20
    evaluator: str


class CaptionRecipe(DrawingRecipe):
    """Candidates that a captioner describes."""

    candidates: PositiveInt = 1
    captioner: str


def published(recipe: Chosen) -> Chosen:
    """The recipe with models named as the card names them."""
    models = {"language_model": recipe.language_model, "vision_tower": recipe.vision_tower}
    return recipe.model_copy(update={field: model and named_model(model) for field, model in models.items()})


def named_model(model: str) -> str:
    """A folder by its last part: where it lay on the machine that trained is nobody's affair."""
    return Path(model).resolve().name if Path(model).is_dir() else model


def read_recipe(folder: Path) -> dict[str, Any]:
    """What a run in a folder was begun with, as JSON has it. Raises CheckpointError where that cannot be read."""
    with named_file(folder / RECIPE_FILE):
        return dict(json.loads((folder / RECIPE_FILE).read_text()))


# FOLDED: Fields of a recipe changed from outside: by options, or one by one.


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
