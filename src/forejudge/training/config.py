"""Recipes: the whole configuration of every step on the way to a verifier, and validated changes to them."""

import json
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal, Self, TypeVar

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    model_validator,
)
from pydantic_core import PydanticSerializationError, to_json

from forejudge.errors import InvalidRequest, one_line, validation_message
from forejudge.hub import public_model_name
from forejudge.options import Count, LargeCount, Seed
from forejudge.training.losses import VerifierLoss
from forejudge.verifiers.cross_attention import CrossAttentionSize
from forejudge.verifiers.inputs import InputWeights, VerifierInputName
from forejudge.verifiers.question import IMAGE_PLACEHOLDER, PUBLISHED_QUESTION, check_question

RECIPE_FILE, INPUTS_FILE = "recipe.json", "trained_on.json"  # in the folder of a training run


class _FrozenModel(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


RecipeT = TypeVar("RecipeT", bound=_FrozenModel)
TrainingRecipeT = TypeVar("TrainingRecipeT", bound="TrainingRecipe")


def _check_instruction(text: str) -> str:
    if text.count(IMAGE_PLACEHOLDER) != 1:
        raise ValueError(f"{text!r} must contain {IMAGE_PLACEHOLDER} exactly once")
    return text


_BatchSize = Annotated[int, Field(gt=0, le=2**20)]
_Rank = Annotated[int, Field(gt=0, le=2**16)]


class TrainingRecipe(_FrozenModel):
    """Fields of both training stages.

    `batch_size` is candidates per optimizer step, over all processes and accumulated batches; each batch is rounded to
    whole groups where candidates are compared. `language_model`, `vision_tower` (for reads = clip or preview) and
    `tiny_decoder` (for reads = preview) are folders or hub ids. The learning rate warms up linearly, then decays as a
    cosine. Every `eval_steps` steps a checkpoint is evaluated on the validation rows, and the best one is kept;
    training stops early after `early_stopping_patience` evaluations without progress. `statistics_rows` candidates
    give the mean and variance of each channel that the connector standardizes by. A `precision` of "auto" is bfloat16
    where the device multiplies it fast, else float32.
    """

    reads: VerifierInputName
    language_model: str
    vision_tower: str | None = None
    tiny_decoder: str | None = None
    spatial_merge_size: int = Field(default=1, gt=0, le=1024)
    steps: LargeCount
    batch_size: _BatchSize
    gradient_accumulation_steps: _BatchSize = 1
    learning_rate: float = Field(gt=0, le=10)
    warmup_steps: int = Field(ge=0, le=10**9)
    weight_decay: float = Field(default=0.0, ge=0, le=1000)
    adam_beta2: float = Field(default=0.999, gt=0, lt=1)
    max_grad_norm: float = Field(default=1.0, gt=0, le=10**6)
    precision: Literal["auto", "float32", "bfloat16", "float16"] = "float32"
    gradient_checkpointing: bool = False
    eval_steps: LargeCount
    early_stopping_patience: LargeCount | None = None
    statistics_rows: LargeCount = 4096
    seed: Seed = 0
    save_dtype: Literal["float32", "bfloat16", "float16"] = "bfloat16"
    tensorboard: bool = False

    @property
    def has_language_model(self) -> bool:
        """True if a language model is trained, or learned from."""
        return True

    @property
    def input_weights(self) -> InputWeights:
        """Weights that the verifier input sees with."""
        return InputWeights(self.vision_tower, self.tiny_decoder)


class AlignRecipe(TrainingRecipe):
    """Stage 1: train the connector alone, so that the language model says an image's caption.

    `captions` is "new" for a captioner's description of the image, "original" for the prompt it was generated from.
    """

    instruction: Annotated[str, AfterValidator(_check_instruction)]
    captions: Literal["new", "original"] = "new"


class RecipeModels(BaseModel):
    """Models named by a recipe of either stage, its other fields ignored."""

    language_model: str
    vision_tower: str | None = None
    tiny_decoder: str | None = None


class LoraOptions(_FrozenModel):
    """Low-rank adapters on every linear layer of the language model (Hu et al. 2021), merged after training."""

    rank: _Rank = 16
    alpha: _Rank = 32
    dropout: float = Field(default=0.0, ge=0, lt=1)


# Fields of a recipe that are None or have fields of their own.
_OPTIONAL_PARTS: dict[str, type[BaseModel]] = {"lora": LoraOptions, "cross_attention": CrossAttentionSize}


class VerifyRecipe(TrainingRecipe):
    """Stage 2: train connector and language model, in full or through `lora`, to answer the question.

    `training_rows` limits training to the first rows of the labeled candidates. `hindsight` (0 to 3) is how many other
    questions are asked about each prompt's candidates, as often as their own is, see `training.hindsight`.
    With `cross_attention` the verifier has no language model, so `language_model` and `question` are not used.
    """

    question: Annotated[str, AfterValidator(check_question)] = PUBLISHED_QUESTION
    loss: VerifierLoss = VerifierLoss(kind="class-weighted")
    lora: LoraOptions | None = None
    cross_attention: CrossAttentionSize | None = None
    training_rows: LargeCount | None = None
    hindsight: int = Field(default=0, ge=0, le=3)

    @model_validator(mode="after")
    def _check_class(self) -> Self:
        if self.cross_attention and (self.lora or self.loss.kind == "regression"):
            raise ValueError("cross_attention goes without lora and loss.kind = regression: leave them out")
        return self

    @property
    def has_language_model(self) -> bool:
        """See `TrainingRecipe.has_language_model`."""
        return self.cross_attention is None

    @property
    def by_group(self) -> bool:
        """True if training batches are made of all candidates of a prompt's image."""
        return self.loss.ranks or self.hindsight > 0


class RunInputs(_FrozenModel):
    """Stage of a run, and digests of its inputs: the generator's weights, both sets of rows, the aligned connector."""

    stage: Literal["align", "verify"]
    generator: str
    training: str
    validation: str
    aligned: str | None = None


class CollectionRecipe(_FrozenModel):
    """Candidates to generate per prompt, and the verifier inputs to record of each (as the option --record)."""

    generator: str
    candidates: Count
    record: str | None = None


class LabelRecipe(CollectionRecipe):
    """Candidates that an evaluator labels right or wrong."""

    candidates: Count = 20
    evaluator: str


class CaptionRecipe(CollectionRecipe):
    """Candidates that a captioner describes."""

    candidates: Count = 1
    captioner: str


def with_changes(recipe: RecipeT, **changes: Any) -> RecipeT:
    """Return a copy of a recipe with fields replaced. Raises InvalidRequest for an unknown field or a wrong value."""
    return _validated(type(recipe), recipe.model_dump() | changes, "")


def with_options(recipe_class: type[RecipeT], preset: RecipeT | None, options: Mapping[str, Any]) -> RecipeT:
    """Build a recipe from command-line options, with a preset's fields where an option is None.

    Raises InvalidRequest for a required field that neither has, and for a wrong value.
    """
    fields = (preset.model_dump() if preset else {}) | {
        name: each for name, each in options.items() if each is not None
    }
    for name, field in recipe_class.model_fields.items():
        if field.is_required() and name not in fields:
            raise InvalidRequest(f"--{name} is missing: name one, or a --recipe that has one")
    return _validated(recipe_class, fields, "--")


def apply_changes(recipe: TrainingRecipeT, changes: Sequence[str]) -> TrainingRecipeT:
    """Apply `--set` options: name=value, nested as loss.kind=focal, values as JSON or plain text.

    Raises InvalidRequest for an unknown field, listing the known ones, and for a wrong value.
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
        if node is None and len(parents) == 1 and parents[0] in _OPTIONAL_PARTS:
            node = values[parents[0]] = _OPTIONAL_PARTS[parents[0]]().model_dump()
        if not isinstance(node, dict) or field not in node:
            raise InvalidRequest(f"--set {change!r}: unknown field; expected one of {', '.join(_field_names(recipe))}")
        node[field] = _parse_value(text)
    return _validated(type(recipe), values, "--set ")


def with_public_names(recipe: TrainingRecipeT) -> TrainingRecipeT:
    """Return the recipe with local model folders reduced to their last part, as the model card names them."""
    models = {field: getattr(recipe, field) for field in RecipeModels.model_fields}
    return with_changes(recipe, **{field: model and public_model_name(model) for field, model in models.items()})


def _validated(recipe_class: type[RecipeT], fields: Mapping[str, Any], prefix: str) -> RecipeT:
    """Validate strictly, as JSON: true is no integer and "5" no number."""
    try:
        return recipe_class.model_validate_json(to_json(fields, inf_nan_mode="constants"), strict=True)
    except ValidationError as error:
        raise InvalidRequest(f"{prefix}{validation_message(error)}") from None
    except PydanticSerializationError as error:  # a lone surrogate
        raise InvalidRequest(f"{prefix}a value is no text in UTF-8 ({one_line(str(error))})") from None


def _field_names(recipe: TrainingRecipe) -> list[str]:
    names = []
    for name, value in recipe:
        nested = _OPTIONAL_PARTS[name]() if name in _OPTIONAL_PARTS else value
        names += [f"{name}.{inner}" for inner, _ in nested] if isinstance(nested, BaseModel) else [name]
    return names


def _parse_value(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):  # plain text, or JSON nested too deeply
        return text
