"""Command-line options derived from the fields of pydantic models."""

import re
from typing import Literal

import pytest
import typer
from pydantic import BaseModel, Field
from typer.testing import CliRunner

from forejudge.cli import options
from forejudge.cli.options import expand_options, parse_ints
from forejudge.errors import InvalidRequest
from forejudge.options import ModelOptions, SamplingParams, SearchOptions
from tests.support.command import CommandLine


class Color(BaseModel):
    hue: int = Field(default=0, ge=0, description="Hue in degrees.")


class Paint(BaseModel):
    layers: int | None = Field(default=None, ge=1, description="Number of layers (default: as many as needed).")
    mixes: tuple[int, ...] | None = Field(default=None, description="Mixes.")
    base: Literal["oil", "water"] = Field(default="oil", description="Base.")
    compiled: bool = False
    color: Color | None = None


@pytest.fixture
def received(monkeypatch: pytest.MonkeyPatch) -> list[Paint]:
    monkeypatch.setattr(options, "_PANELS", {Paint: "Paint", Color: "Color"})
    return []


def run(received: list[Paint], *arguments: str) -> str:
    app = typer.Typer(add_completion=False)

    @app.command()
    @expand_options
    def paint(*, wall: str = "north", paint: Paint) -> None:
        received.append(paint)

    result = CliRunner().invoke(app, list(arguments))
    if isinstance(result.exception, InvalidRequest):
        raise result.exception
    return result.output


def test_fields_become_options_nested_ones_too(received: list[Paint]) -> None:
    run(received, "--layers", "0002", "--mixes", "3, 14,15", "--compile", "--hue", "9", "--base", "water")
    assert received == [Paint(layers=2, mixes=(3, 14, 15), compiled=True, base="water", color=Color(hue=9))]


def test_only_fields_that_were_given_are_set_zero_included(received: list[Paint]) -> None:
    run(received)
    run(received, "--hue", "0")
    assert received[0] == Paint()
    assert received[0].model_fields_set == set()
    assert received[1].color is not None
    assert received[1].color.model_fields_set == {"hue"}


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--layers", "0"), "layers = 0: Input should be greater than or equal to 1"),
        (("--mixes", "3,,4"), "mixes.1 = '': Input should be a valid integer"),
        (("--base", "milk"), "base = 'milk': Input should be 'oil' or 'water'"),
        (("--hue", "-1"), "hue = -1: Input should be greater than or equal to 0"),
    ],
)
def test_a_wrong_value_is_refused_by_name(received: list[Paint], arguments: tuple[str, ...], said: str) -> None:
    with pytest.raises(InvalidRequest, match=said):
        run(received, *arguments)
    assert received == []


def test_help_describes_every_field_with_its_default(received: list[Paint], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    text = run(received, "--help")
    for said in ("(default: as many as needed)", "Base (default: oil).", "oil|water", "Hue in degrees (default: 0)."):
        assert said in text


def test_every_option_of_the_library_is_offered(forejudge: CommandLine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    text = forejudge("generate", "--help").out
    fields = [*SearchOptions.model_fields, *SamplingParams.model_fields, *ModelOptions.model_fields]
    hidden = {"image_index", "sampling", "compiled"}
    assert all(f"--{name.replace('_', '-')} " in text for name in fields if name not in hidden)


@pytest.mark.parametrize(
    ("command", "options"),
    [
        (
            "generate x",
            ["--n", "--max-n", "--top-k", "--images-per-prompt", "--seed", "--seeds", "--steps", "--height"],
        ),
        ("generate x", ["--guidance-scale", "--lora-scale", "--budget-ms", "--batch-size", "--verifier-step"]),
        ("eval", ["--n", "--images-per-prompt", "--seeds", "--steps", "--budget-ms"]),
        ("profile", ["--n", "--rounds", "--budget-ms"]),
        ("prompts miniature --out o", ["--count"]),
        ("prompts geneval --objects o --out o", ["--count"]),
        ("study layers", ["--training-seeds"]),
    ],
)
def test_numbers_beyond_all_bounds_are_refused(forejudge: CommandLine, command: str, options: list[str]) -> None:
    for option in options:
        outcome = forejudge(*command.split(), option, "9" * 23)
        assert (outcome.status, outcome.out) == (2, ""), option
        text = " ".join(outcome.err.replace("│", " ").split())  # typer's own checks print a box
        assert re.search(r"less than|numbers? from 1 to", text), option


def test_lists_of_numbers_are_sorted_each_once() -> None:
    assert parse_ints("--n", "8,1,2,2") == [1, 2, 8]
    for text in ("0,2", "2,10001", "2,x"):
        with pytest.raises(InvalidRequest, match=f"--n '{text}' is not a list of numbers from 1 to 10000"):
            parse_ints("--n", text)
