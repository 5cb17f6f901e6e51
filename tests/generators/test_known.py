"""Known generators by name, and their revisions."""

import re

import pytest

from forejudge.errors import InvalidRequest
from forejudge.generators.known import KNOWN_MODELS, GeneratorSpec, find_spec, split_options

SANA = "Efficient-Large-Model/Sana_Sprint_1.6B_1024px_diffusers"


def test_a_hub_id_is_as_good_as_the_short_name() -> None:
    spec = find_spec(SANA)
    assert spec is not None
    assert spec == find_spec("sana-sprint-1.6b") == KNOWN_MODELS["sana-sprint-1.6b"]
    assert spec.verifier == "aimagelab/vhs-hidden-verifier"
    assert find_spec("owner/model") is find_spec("minature") is None


@pytest.mark.parametrize("name", [SANA, "sana-sprint-1.6b"])
def test_a_revision_goes_with_either_and_leaves_the_rest(name: str) -> None:
    spec = find_spec(f"{name}@v1.0")
    assert spec is not None
    assert spec.pipeline == f"{SANA}@v1.0"
    assert spec.verifier == KNOWN_MODELS["sana-sprint-1.6b"].verifier


def test_the_weights_are_the_transformer_s_where_it_has_a_repository_of_its_own(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    spec = GeneratorSpec(name="few-step", pipeline="owner/base", transformer="owner/few-step@v1", description="")
    monkeypatch.setitem(KNOWN_MODELS, "few-step", spec)
    assert find_spec("owner/few-step") == spec
    assert find_spec("owner/base") is None
    pinned = find_spec("owner/few-step@v2")
    assert pinned is not None
    assert (pinned.pipeline, pinned.transformer) == ("owner/base", "owner/few-step@v2")


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("x", {}),
        ("x,a=1", {"a": 1}),
        ("x,a=[1,2],b=3", {"a": [1, 2], "b": 3}),
        ('x,a=["one, two","c=d"],b=false', {"a": ["one, two", "c=d"], "b": False}),
        ('x,a={"b": [1, 2]}', {"a": {"b": [1, 2]}}),
        ('x,a="b,c",d=text', {"a": "b,c", "d": "text"}),
        ("x,a=1.5x,b=null,c=", {"a": "1.5x", "b": None, "c": ""}),
    ],
)
def test_commas_inside_a_value_belong_to_it(name: str, options: dict[str, object]) -> None:
    assert split_options(name) == ("x", options)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("x,a", "'a' is no option"),
        ("x,a,b=1", "'a' is no option"),
        ("x,a=[1,2", "does not begin with JSON"),
        ("x,a=['b']", "does not begin with JSON"),
        ("x,a=[1,2]b", "does not begin with JSON"),
    ],
)
def test_an_option_that_cannot_be_read_is_quoted(name: str, said: str) -> None:
    with pytest.raises(InvalidRequest, match=re.escape(said)):
        split_options(name)
