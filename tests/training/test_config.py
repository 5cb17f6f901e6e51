"""Recipes: fields changed from outside."""

import pytest

from forejudge.errors import InvalidRequest
from forejudge.training.config import LoraOptions, apply_changes
from forejudge.training.losses import VerifierLoss
from forejudge.training.presets import load_preset

MINIATURE = load_preset("miniature").verify


def test_fields_are_changed_one_by_one() -> None:
    found = apply_changes(
        MINIATURE, ["steps=5", "loss.kind=focal", "loss.gamma=0.5", "learning_rate=1e-3", "precision=bfloat16"]
    )
    assert found == MINIATURE.model_copy(
        update={
            "steps": 5,
            "loss": VerifierLoss(kind="focal", gamma=0.5),
            "learning_rate": 1e-3,
            "precision": "bfloat16",
        }
    )
    assert apply_changes(MINIATURE, []) == MINIATURE


def test_the_last_change_of_a_field_counts() -> None:
    assert apply_changes(MINIATURE, ["steps=5", "steps=7"]).steps == 7


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
        ("steps=many", "--set steps = many: "),
        ("steps=1.5", "--set steps = 1.5: "),
        ("loss.kind=hinge", "--set loss.kind = hinge: Input should be 'cross-entropy'"),
        ("loss=focal", "--set loss = focal: "),
        ("lora.dropout=1", "--set lora.dropout = 1: "),
        ("reads=hidden:0", "--set reads = hidden:0: "),
        ("question=what?", "must hold <image> once and {prompt} once after it"),
        ("steps", "--set 'steps': expected name=value"),
    ],
)
def test_a_value_that_cannot_be_is_refused_by_name(change: str, said: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        apply_changes(MINIATURE, [change])
    assert said in str(caught.value)


def test_stage_1_needs_an_instruction_with_a_picture() -> None:
    with pytest.raises(InvalidRequest, match="must hold <image> once"):
        apply_changes(load_preset("miniature").align, ["instruction=describe it"])
