"""`forejudge verifier`: what a trained verifier is."""

import json
from pathlib import Path
from typing import Annotated

import typer
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from typer import Argument

group = typer.Typer(help="Look at a verifier.")


@group.callback()
def root() -> None:
    """Look at a verifier."""


@group.command()
def show(folder: Annotated[Path, Argument(help="A verifier's folder.")]) -> None:
    """What a verifier reads, how it asks, and how good it was on validation prompts."""
    from forejudge.checkpoint import read_config
    from forejudge.training.output import CARD_FILE, FIGURES_FILE
    from forejudge.verifiers.language_model import CONFIG_FILE, VerifierConfig

    config = read_config(folder / CONFIG_FILE, VerifierConfig)
    table = Table("", "", box=SIMPLE_HEAD, show_header=False)
    table.add_row("reads", config.reads)
    for name, value in config.generator:
        table.add_row(f"generator's {name.replace('_', ' ')}", str(value))
    table.add_row("generator's weights", config.generator_fingerprint)
    if config.generator_source:
        table.add_row("generator's commit", config.generator_source)
    table.add_row("question", config.question)
    table.add_row("calibration", "none" if config.calibration is None else _in_words(config.calibration.model_dump()))
    for name, value in _figures(folder / FIGURES_FILE).items():
        table.add_row(name.replace("_", " "), f"{value:.4g}" if isinstance(value, int | float) else "undefined")
    Console(highlight=False).print(table)
    if (folder / CARD_FILE).is_file():
        typer.echo(f"How it was made, and its licences: {folder / CARD_FILE}")


def _figures(path: Path) -> dict[str, float | None]:
    return dict(json.loads(path.read_text())) if path.is_file() else {}


def _in_words(values: dict[str, float]) -> str:
    return ", ".join(f"{name} {value:.4g}" for name, value in values.items())
