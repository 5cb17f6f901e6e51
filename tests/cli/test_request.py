from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tests.doubles import ScriptedGenerator

from forejudge.cli.request import ModelOptions, Request, SamplingOptions, SearchOptions, parse_seeds
from forejudge.errors import InvalidRequest
from forejudge.generators.base import Sampling

NOTHING = Request(
    ModelOptions(None, None, None, None, None, None, None, False),
    SamplingOptions(None, None, None, None, None),
    SearchOptions(None, None, None, None, None, None, None),
    images_per_prompt=1,
    everything=False,
)


class Listening:
    """Stands in for `BestOfN`, and keeps what it is asked."""

    def __init__(self, *further_warnings: str) -> None:
        self.further_warnings = further_warnings
        self.asked: dict[str, Any] = {}
        self.warnings: tuple[str, ...] = ("told before",)
        self.generator = ScriptedGenerator()
        self.generator.defaults = Sampling(steps=4, guidance_scale=1.5)

    def __call__(self, prompt: str, **arguments: Any) -> None:
        self.asked.update(prompt=prompt, **arguments)
        self.warnings += self.further_warnings


def arguments_of(request: Request) -> dict[str, Any]:
    """What a request asks of the library for one image."""
    best = Listening()
    request.run(best, "x", 3)  # type: ignore[arg-type]
    return best.asked


def test_options_that_were_not_given_are_left_to_the_library() -> None:
    asked = arguments_of(NOTHING)
    assert asked.keys() == {"prompt", "image_index", "sampling", "on_progress"}
    assert asked["image_index"] == 3
    assert asked["sampling"] == Sampling(steps=4, guidance_scale=1.5)  # as the generator has it


def test_zero_is_given() -> None:
    search = replace(NOTHING.search, seed=0, n=4)
    asked = arguments_of(replace(NOTHING, search=search, sampling=SamplingOptions(2, 0.0, None, None, None)))
    assert (asked["seed"], asked["n"], asked["sampling"].steps, asked["sampling"].guidance_scale) == (0, 4, 2, 0.0)


@pytest.mark.parametrize(
    ("options", "most"),
    [({}, 8), ({"n": 5}, 5), ({"seeds": (4, 2, 7)}, 3), ({"until": 0.9}, 64), ({"budget_ms": 9.0, "max_n": 16}, 16)],
)
def test_all_finishes_as_many_as_there_can_be(options: dict[str, Any], most: int) -> None:
    search = replace(NOTHING.search, **options)
    assert arguments_of(replace(NOTHING, search=search, everything=True))["top_k"] == most


def test_seeds_are_read_off_a_list() -> None:
    assert parse_seeds("3, 14,15") == (3, 14, 15)
    assert parse_seeds(None) is None
    with pytest.raises(InvalidRequest, match="expected numbers"):
        parse_seeds("3,,4")


def test_sampling_is_checked_before_models_are_loaded(tmp_path: Path) -> None:
    models = replace(NOTHING.models, generator=str(tmp_path / "not looked for"))
    with pytest.raises(InvalidRequest, match="steps = 65"):
        replace(NOTHING, models=models, sampling=SamplingOptions(65, None, None, None, None)).load()


def test_what_a_search_had_to_do_without_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    NOTHING.run(Listening("nothing is compiled"), "x", 0)  # type: ignore[arg-type]
    assert capsys.readouterr().err == "warning: nothing is compiled\n"
