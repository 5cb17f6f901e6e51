from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tests.cli.test_request import NOTHING

from forejudge.cli.request import Request, SamplingOptions
from forejudge.cli.run_settings import RunSettings
from forejudge.errors import InvalidRequest
from forejudge.generators import KNOWN_MODELS, GeneratorSpec
from forejudge.generators.base import Sampling


@pytest.fixture(autouse=True)
def no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """On one the default dtype is another."""
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)


def changed(**options: Any) -> Request:
    """A request with some options; each belongs to one of its groups."""
    request = NOTHING
    for name, value in options.items():
        group = next((group for group in ("models", "sampling", "search") if name in vars(getattr(request, group))), "")
        change = {group: replace(getattr(request, group), **{name: value})} if group else {name: value}
        request = replace(request, **change)
    return request


def test_defaults_are_filled_in() -> None:
    settings = RunSettings.of(NOTHING)
    assert (settings.generator, settings.verifier, settings.dtype) == ("miniature", "miniature", "float32")
    assert (settings.n, settings.seed, settings.sampling.steps) == (8, 0, 1)


def test_a_generator_s_own_way_of_drawing_is_filled_in(monkeypatch: pytest.MonkeyPatch) -> None:
    spec = GeneratorSpec(name="few-step", pipeline="owner/few-step", sampling=Sampling(steps=4), description="")
    monkeypatch.setitem(KNOWN_MODELS, "few-step", spec)
    for name in ("few-step", "owner/few-step@v1"):
        assert RunSettings.of(changed(generator=name)).sampling == Sampling(steps=4)
        assert RunSettings.of(changed(generator=name, steps=2)).sampling == Sampling(steps=2)


@pytest.mark.parametrize(
    "same",
    [
        {"n": 8, "seed": 0, "verifier": "miniature"},
        {"device": "cpu", "batch_size": 2},
    ],
)
def test_the_same_in_other_words_is_let_through(tmp_path: Path, same: dict[str, Any]) -> None:
    RunSettings.of(NOTHING).store(tmp_path)
    RunSettings.of(changed(**same)).check(tmp_path)


@pytest.mark.parametrize(
    ("other", "said"),
    [
        ({"n": 4}, "n = 8, this run has n = 4"),
        ({"seed": 1}, "seed = 0, this run has seed = 1"),
        ({"seeds": (1, 2)}, "n = 8, this run has n = 2"),
        ({"until": 0.9}, "n = 8, this run has n = None"),
        ({"images_per_prompt": 2}, "images_per_prompt = 1, this run has images_per_prompt = 2"),
        ({"generator": "owner/model"}, "generator = miniature, this run has generator = owner/model"),
        ({"verifier": "mine"}, "verifier = miniature, this run has verifier = mine"),
        ({"dtype": "bfloat16"}, "dtype = float32, this run has dtype = bfloat16"),
        ({"steps": 2}, "sampling = steps=1 .*, this run has sampling = steps=2"),
    ],
)
def test_other_settings_are_refused_with_both_values(tmp_path: Path, other: dict[str, Any], said: str) -> None:
    RunSettings.of(NOTHING).store(tmp_path)
    with pytest.raises(InvalidRequest, match=f"was made with {said}"):
        RunSettings.of(changed(**other)).check(tmp_path)


def test_a_folder_is_the_same_by_any_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "model").mkdir()
    monkeypatch.chdir(tmp_path)
    assert RunSettings.of(changed(generator="model")) == RunSettings.of(changed(generator=str(tmp_path / "model")))


def test_sampling_is_named_in_full() -> None:
    assert RunSettings.of(replace(NOTHING, sampling=SamplingOptions(1, None, None, None, 1.0))) == RunSettings.of(
        NOTHING
    )
