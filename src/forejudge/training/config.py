"""What a step of the training is: a typed recipe."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, cast

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, NonNegativeInt, PositiveFloat, PositiveInt
from pydantic import ValidationError as PydanticError

from forejudge.checkpoint import checkpoint_errors
from forejudge.errors import InvalidRequest
from forejudge.training.losses import VerifierLoss
from forejudge.verifiers.inputs import VerifierInputName
from forejudge.verifiers.question import IMAGE_PLACEHOLDER, PUBLISHED_QUESTION, check_question

RECIPE_FILE = "recipe.json"  # in a run's folder

RecipeT = TypeVar("RecipeT", bound="TrainingRecipe")


class _FrozenModel(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


def _check_instruction(text: str) -> str:
    if text.count(IMAGE_PLACEHOLDER) != 1:
        raise ValueError(f"{text!r} must hold {IMAGE_PLACEHOLDER} once")
    return text


class TrainingRecipe(_FrozenModel):
    """What both stages share. A step takes `batch_size` candidates, over all processes and accumulated batches.

    `reads` is spelled as `build_verifier_input` takes it, `vision_tower` and `language_model` are folders or hub ids;
    `spatial_merge_size` as `Connector` takes it. The
    learning rate rises linearly, then falls as a cosine. A run that has not become better for `early_stopping_patience` evaluations
    stops early; the best checkpoint is what is kept.
    """

    reads: VerifierInputName
    language_model: str
    vision_tower: str | None = None
    spatial_merge_size: PositiveInt = 1
    steps: PositiveInt
    batch_size: PositiveInt
    gradient_accumulation_steps: PositiveInt = 1
    learning_rate: PositiveFloat
    warmup_steps: NonNegativeInt
    weight_decay: float = Field(default=0.0, ge=0)
    adam_beta2: float = Field(default=0.999, gt=0, lt=1)
    max_grad_norm: PositiveFloat = 1.0
    precision: Literal["float32", "bfloat16", "float16"] = "float32"
    gradient_checkpointing: bool = False
    eval_steps: PositiveInt
    early_stopping_patience: PositiveInt | None = None
    statistics_rows: PositiveInt = 4096
    seed: int = 0
    save_dtype: Literal["float32", "bfloat16", "float16"] = "bfloat16"
    tensorboard: bool = False


class AlignRecipe(TrainingRecipe):
    """Stage 1: the connector alone learns to make the language model say a picture's caption.

    `captions` chooses what is to be said: what a captioner says of the picture, or the text it was drawn from.
    """

    instruction: Annotated[str, AfterValidator(_check_instruction)]
    captions: Literal["new", "original"] = "new"


class LoraOptions(_FrozenModel):
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
    lora: LoraOptions | None = None
    training_rows: PositiveInt | None = None


class CollectionRecipe(_FrozenModel):
    """What is drawn of every prompt, and what is kept of it: `record` is spelled as in `--record`."""

    generator: str
    candidates: PositiveInt
    record: str | None = None


class LabelRecipe(CollectionRecipe):
    """Candidates that an evaluator judges."""

    candidates: PositiveInt = 20
    evaluator: str


class CaptionRecipe(CollectionRecipe):
    """Candidates that a captioner describes."""

    candidates: PositiveInt = 1
    captioner: str


def with_public_names(recipe: RecipeT) -> RecipeT:
    """The recipe with models named as the card names them."""
    models = {"language_model": recipe.language_model, "vision_tower": recipe.vision_tower}
    return recipe.model_copy(update={field: model and public_model_name(model) for field, model in models.items()})


def public_model_name(model: str) -> str:
    """A folder by its last part: where it lay on the machine that trained is nobody's affair."""
    return Path(model).resolve().name if Path(model).is_dir() else model


def read_recipe(folder: Path) -> dict[str, Any]:
    """What a run in a folder was begun with, as JSON has it. Raises CheckpointError where that cannot be read."""
    with checkpoint_errors(folder / RECIPE_FILE):
        return dict(json.loads((folder / RECIPE_FILE).read_text()))


# FOLDED: Fields of a recipe changed from outside: by options, or one by one.


CollectionRecipeT = TypeVar("CollectionRecipeT", bound=CollectionRecipe)


def with_options(
    kind: type[CollectionRecipeT], preset: CollectionRecipeT | None, options: Mapping[str, Any]
) -> CollectionRecipeT:
    """A known recipe with options in the place of its fields; None leaves a field as it is. No value is checked.

    Raises InvalidRequest for a field that neither has.
    """
    set_options = {name: value for name, value in options.items() if value is not None}
    fields = (preset.model_dump() if preset else {}) | set_options
    for name, field in kind.model_fields.items():
        if field.is_required() and name not in fields:
            raise InvalidRequest(f"--{name} is missing: name one, or a --recipe that has one")
    return cast(CollectionRecipeT, kind.model_construct(**fields))


def apply_changes(recipe: RecipeT, changes: Sequence[str]) -> RecipeT:
    """A recipe with fields changed, each written name=value; a nested field as loss.kind=focal, values as in JSON.

    Raises InvalidRequest for a field it does not have, listing those it has, or a value it cannot take.
    """
    values = recipe.model_dump()
    for change in changes:
        name, separator, text = change.partition("=")
        if not separator:
            raise InvalidRequest(f"--set {change!r}: expected name=value, such as steps=500")
        *parents, field = name.split(".")
        node: Any = values
        for parent in parents:
            node = node.get(parent) if isinstance(node, dict) else None
        if parents == ["lora"] and node is None:
            node = values["lora"] = LoraOptions().model_dump()
        if not isinstance(node, dict) or field not in node:
            raise InvalidRequest(f"--set {change!r}: unknown field; there are {', '.join(_fields(recipe))}")
        node[field] = _value(text)
    try:
        return type(recipe).model_validate(values)
    except PydanticError as error:
        first = error.errors()[0]
        raise InvalidRequest(f"--set {'.'.join(map(str, first['loc']))} = {first['input']}: {first['msg']}") from None


def _fields(recipe: TrainingRecipe) -> list[str]:
    names = []
    for name, value in recipe:
        nested = LoraOptions() if name == "lora" else value
        names += [f"{name}.{inner}" for inner, _ in nested] if isinstance(nested, BaseModel) else [name]
    return names


def _value(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text
