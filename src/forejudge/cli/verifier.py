"""`forejudge verifier`: what a trained verifier is, and verifiers from and to the published layout."""

import json
from pathlib import Path
from typing import Annotated

import typer
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from typer import Argument, Option

group = typer.Typer(help="Look at a verifier, import a published one, export one.")


@group.callback()
def root() -> None:
    """Look at a verifier, import a published one, export one."""


@group.command()
def show(folder: Annotated[Path, Argument(help="A verifier's folder.")]) -> None:
    """What a verifier reads, how it asks, and how good it was on validation prompts."""
    from forejudge.config_files import read_config
    from forejudge.training.output import CARD_FILE, METRICS_FILE
    from forejudge.verifiers.config import CONFIG_FILE, VerifierConfig

    config = read_config(folder / CONFIG_FILE, VerifierConfig)
    table = Table("", "", box=SIMPLE_HEAD, show_header=False)
    table.add_row("reads", config.reads)
    unknown = {"architecture": f"not known beyond a width of {config.width}"}
    for name, value in (config.generator.model_dump() if config.generator else unknown).items():
        table.add_row(f"generator's {name.replace('_', ' ')}", str(value))
    table.add_row("generator's weights", config.generator_fingerprint or "not known")
    if config.generator_source:
        table.add_row("generator's commit", config.generator_source)
    table.add_row("question", config.question)
    table.add_row(
        "calibration", "none" if config.calibration is None else _format_values(config.calibration.model_dump())
    )
    for name, value in _figures(folder / METRICS_FILE).items():
        table.add_row(name.replace("_", " "), f"{value:.4g}" if isinstance(value, int | float) else "undefined")
    Console(highlight=False).print(table)
    if (folder / CARD_FILE).is_file():
        typer.echo(f"How it was made, and its licenses: {folder / CARD_FILE}")


@group.command("import")
def import_(
    source: Annotated[str, Argument(help="A published verifier: a folder or a hub id.")],
    out: Annotated[Path, Argument(help="The folder to write.")],
    statistics: Annotated[
        tuple[Path, Path] | None,
        Option(
            metavar="MEAN VARIANCE",
            help="Files with mean and variance of the hidden states (default: those that lie beside the verifier).",
            show_default=False,
        ),
    ] = None,
    generator: Annotated[
        str | None,
        Option(
            help="The generator it reads: a folder, a hub id or a known name, of which only configs are read "
            "(default: SANA-Sprint 1.6B where the width is 2240, else not known)."
        ),
    ] = None,
    vision_tower: Annotated[
        str | None, Option(help="The CLIP tower, a folder or hub id (default: the one that the verifier names).")
    ] = None,
) -> None:
    """Convert a verifier from its published layout once, and say all that was done and supposed."""
    from forejudge.files import atomic_folder
    from forejudge.hub import fetch
    from forejudge.verifiers.published_format import PUBLISHED_FILES
    from forejudge.verifiers.published_import import PublishedSource, import_published

    with atomic_folder(out) as folder:
        origin = fetch(source, PUBLISHED_FILES)
        imported = import_published(PublishedSource(origin, statistics, generator, vision_tower))
        imported.verifier.save_pretrained(folder)
    for step in imported.notes:
        typer.echo(step)
    typer.echo(f"written to {out}")


@group.command()
def export(
    source: Annotated[str, Argument(help="A verifier's folder or hub id.")],
    out: Annotated[Path, Argument(help="The folder to write.")],
) -> None:
    """Write a verifier in the published layout, for the code that was released with it."""
    from forejudge.files import atomic_folder
    from forejudge.hub import local_folder
    from forejudge.verifiers.published_export import export_published

    with atomic_folder(out) as folder:
        export_published(local_folder(source), folder)
    typer.echo(f"written to {out}")


def _figures(path: Path) -> dict[str, float | None]:
    return dict(json.loads(path.read_text())) if path.is_file() else {}


def _format_values(values: dict[str, float]) -> str:
    return ", ".join(f"{name} {value:.4g}" for name, value in values.items())
