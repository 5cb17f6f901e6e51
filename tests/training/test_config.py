"""Recipes: fields changed from outside."""

import re
from typing import Any

import pytest
from pydantic import BaseModel

from forejudge.errors import InvalidRequest
from forejudge.training.config import LabelRecipe, LoraOptions, apply_changes, with_changes, with_options
from forejudge.training.losses import VerifierLoss
from forejudge.training.presets import load_preset
from forejudge.verifiers.cross_attention import CrossAttentionSize

MINIATURE = load_preset("miniature").verify


def test_fields_are_changed_one_by_one() -> None:
    found = apply_changes(
        MINIATURE, ["steps=5", "loss.kind=focal", "loss.gamma=0.5", "learning_rate=1e-3", "precision=bfloat16"]
    )
    assert found == MINIATURE.model_copy(
        update={
            "steps": 5,
            "loss": VerifierLoss(kind="focal", gamma=0.5, pairwise=1.0),
            "learning_rate": 1e-3,
            "precision": "bfloat16",
        }
    )
    assert apply_changes(MINIATURE, []) == MINIATURE


def test_the_last_change_of_a_field_counts() -> None:
    assert apply_changes(MINIATURE, ["steps=5", "steps=7"]).steps == 7


def test_a_class_is_chosen_by_its_first_field_or_with_its_defaults() -> None:
    assert apply_changes(MINIATURE, ["cross_attention.layers=2"]).cross_attention == CrossAttentionSize(layers=2)
    assert apply_changes(MINIATURE, ["cross_attention={}"]).cross_attention == CrossAttentionSize()
    for wrong in ("lora.rank=2", "loss.kind=regression"):
        with pytest.raises(InvalidRequest, match=r"cross_attention goes without lora and loss\.kind = regression"):
            apply_changes(MINIATURE, ["cross_attention={}", wrong])


def test_adapters_are_switched_on_by_their_first_field_and_off_by_null() -> None:
    adapted = apply_changes(MINIATURE, ["lora.rank=4"])
    assert adapted.lora == LoraOptions(rank=4)
    assert apply_changes(adapted, ["lora.alpha=7"]).lora == LoraOptions(rank=4, alpha=7)
    assert apply_changes(adapted, ["lora=null"]).lora is None


def test_text_stays_text() -> None:
    question = "<image> is this {prompt}? a=b"
    assert apply_changes(MINIATURE, [f"question={question}", "language_model=owner/model"]).question == question


@pytest.mark.parametrize("change", ["step=3", "loss.kinds=focal", "lora.ranks=3", "lora.rank.x=3", "steps.x=3", "=3"])
def test_an_unknown_field_is_refused_with_the_known_ones(change: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        apply_changes(MINIATURE, [change])
    for known in (
        f"--set '{change}': unknown field",
        "steps",
        "loss.kind",
        "loss.alpha",
        "lora.rank",
        "seed",
        "question",
    ):
        assert known in str(caught.value)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("steps=0", "--set steps = 0: Input should be greater than 0"),
        ("steps=many", "--set steps = 'many': Input should be a valid integer"),
        ("steps=1.5", "--set steps = 1.5: Input should be a valid integer"),
        ("steps=true", "--set steps = True: Input should be a valid integer"),
        ("tensorboard=1", "--set tensorboard = 1: Input should be a valid boolean"),
        ("learning_rate=Infinity", "--set learning_rate = inf: Input should be a finite number"),
        ("adam_beta2=1", "--set adam_beta2 = 1: Input should be less than 1"),
        ("seed=-1", "--set seed = -1: Input should be greater than or equal to 0"),
        ("seed=99999999999999999999", "--set seed = 99999999999999999999: Input should be less than or equal to 4294"),
        ("learning_rate=1e308", "--set learning_rate = 1e+308: Input should be less than or equal to 10"),
        ("weight_decay=NaN", "--set weight_decay = nan: Input should be a finite number"),
        ("loss.gamma=1e308", "--set loss.gamma = 1e+308: Input should be less than or equal to 100"),
        ("lora.rank=100000", "--set lora.rank = 100000: Input should be less than or equal to 65536"),
        ("steps=" + "[" * 100_000, "--set steps = '[[["),
        ("precision=int8", "--set precision = 'int8': Input should be 'auto', 'float32', 'bfloat16' or 'float16'"),
        ("language_model=null", "--set language_model = None: Input should be a valid string"),
        ("loss.kind=hinge", "--set loss.kind = 'hinge': Input should be 'cross-entropy'"),
        ("loss=focal", "--set loss = 'focal': Input should be an object"),
        ("lora.dropout=1", "--set lora.dropout = 1: Input should be less than 1"),
        ("reads=hidden:0", "--set reads = 'hidden:0': "),
        ("question=what?", "must hold <image> once and {prompt} once after it"),
        ("steps", "--set 'steps': expected name=value"),
    ],
)
def test_a_value_that_cannot_be_is_refused_by_name(change: str, said: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        apply_changes(MINIATURE, [change])
    assert said in str(caught.value)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"candidates": 0}, "--candidates = 0: Input should be greater than or equal to 1"),
        ({"candidates": 10**23}, "--candidates = 10+: Input should be less than or equal to 10000"),
        ({"candidates": "8"}, "--candidates = '8': expected a whole number, not str"),
        ({"record": 12}, "--record = 12: Input should be a valid string"),
        ({"number": 3}, "--number = 3: Extra inputs are not permitted"),
    ],
)
def test_options_are_validated(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidRequest, match=message):
        with_options(LabelRecipe, load_preset("miniature").label, options)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"step": 3}, "step = 3: Extra inputs are not permitted"),
        ({"steps": -1}, "steps = -1: Input should be greater than 0"),
        ({"steps": "3"}, "steps = '3': Input should be a valid integer"),
        ({"loss": {"kind": "focal", "gamma": -1.0}}, "loss.gamma = -1.0: Input should be greater than or equal to 0"),
    ],
)
def test_changes_from_code_are_validated(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidRequest, match=message):
        with_changes(MINIATURE, **changes)


def numeric_fields(recipe: BaseModel) -> list[str]:
    """Names of the number fields of a recipe, nested ones included."""
    names = []
    for name, field in type(recipe).model_fields.items():
        nested = LoraOptions() if name == "lora" else getattr(recipe, name)
        if isinstance(nested, BaseModel):
            names += [f"{name}.{inner}" for inner in numeric_fields(nested)]
        elif re.search(r"\b(int|float)\b", str(field.annotation)):
            names.append(name)
    return names


@pytest.mark.parametrize("text", ["1e308", str(10**23), "-1", "NaN", "Infinity"])
def test_every_number_of_a_recipe_has_finite_bounds(text: str) -> None:
    for recipe in (MINIATURE, load_preset("miniature").align):
        names = numeric_fields(recipe)
        assert {"steps", "seed", "weight_decay", "early_stopping_patience"} <= {*names}
        for name in names:
            with pytest.raises(InvalidRequest, match=rf"--set {name} = "):
                apply_changes(recipe, [f"{name}={text}"])


def test_a_change_from_code_takes_models_and_their_fields() -> None:
    changed = with_changes(MINIATURE, loss=VerifierLoss(kind="focal"), lora={"rank": 4})
    assert (changed.loss.kind, changed.lora) == ("focal", LoraOptions(rank=4))


def test_stage_1_needs_an_instruction_with_a_picture() -> None:
    with pytest.raises(InvalidRequest, match="must contain <image> exactly once"):
        apply_changes(load_preset("miniature").align, ["instruction=describe it"])


def test_a_value_that_is_no_utf8_is_refused() -> None:
    with pytest.raises(InvalidRequest, match="--set a value is no text in UTF-8"):
        apply_changes(load_preset("miniature").verify, ["question=caf\udce9"])
