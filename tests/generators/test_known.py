"""Known generators by name, and their revisions."""

import pytest

from forejudge.generators.known import KNOWN_MODELS, GeneratorSpec, find_spec

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
