"""`forejudge verifier`: show a trained verifier, import one from the published layout, export one to it."""

from pathlib import Path
from typing import Annotated, Any

import typer
from pydantic import BaseModel, ConfigDict, Field
from rich.box import SIMPLE_HEAD
from rich.table import Table
from typer import Argument, Option

from forejudge.cli.common import echo, new_console
from forejudge.config_files import read_config
from forejudge.files import is_file

_Share = Annotated[float, Field(strict=True, ge=0, le=1)]
_Figure = Annotated[float, Field(strict=True, allow_inf_nan=False, ge=-1e9, le=1e9)]


class _Metrics(BaseModel):
    """Figures on validation prompts by name; None for one that is undefined."""

    model_config = ConfigDict(extra="allow")
    __pydantic_extra__: dict[str, _Figure | None]

    auroc: _Share | None
    balanced_accuracy: _Share | None = None
    expected_calibration_error: _Share | None = None
    pair_accuracy: _Share | None = None


_SHOWN_FIRST = {"kind", "reads", "generator", "generator_fingerprint", "generator_source", "width"}
_NOT_SHOWN = {"published_config"}  # pages long, and in the file

group = typer.Typer(help="Show a verifier, import a published one, or export one to the published layout.")


@group.command()
def show(folder: Annotated[Path, Argument(help="A verifier's folder.")]) -> None:
    """Show a verifier's kind, input, generator, calibration and metrics on validation prompts."""
    from forejudge.training.output import CARD_FILE, METRICS_FILE
    from forejudge.verifiers import read_verifier_config

    config = read_verifier_config(folder)
    table = Table("", "", box=SIMPLE_HEAD, show_header=False)
    table.add_row("kind", config.kind)
    table.add_row("reads", config.reads)
    unknown = {"architecture": f"unknown, of width {config.width}"}
    for name, value in (config.generator.model_dump() if config.generator else unknown).items():
        table.add_row(f"generator's {_words(name)}", str(value))
    table.add_row("generator's weights", config.generator_fingerprint or "unknown")
    if config.generator_source:
        table.add_row("generator's commit", config.generator_source)
    for name, value in config.model_dump(exclude=_SHOWN_FIRST | _NOT_SHOWN).items():
        table.add_row(_words(name), _format(value))
    metrics_path = folder / METRICS_FILE
    remedy = "delete the file, the verifier works without it"
    metrics = (
        read_config(metrics_path, _Metrics, remedy).model_dump(exclude_unset=True) if is_file(metrics_path) else {}
    )
    for name, value in metrics.items():
        table.add_row(_words(name), "undefined" if value is None else _format(value))
    new_console().print(table)
    if is_file(folder / CARD_FILE):
        echo(f"Model card, with provenance and licenses: {folder / CARD_FILE}")


@group.command("import")
def import_(
    source: Annotated[str, Argument(help="Published verifier: a folder or a hub id.")],
    out: Annotated[Path, Argument(help="Folder to write.")],
    statistics: Annotated[
        tuple[Path, Path] | None,
        Option(
            metavar="MEAN VARIANCE",
            help="Files with mean and variance of the hidden states (default: the pair in the verifier's folder).",
            show_default=False,
        ),
    ] = None,
    generator: Annotated[
        str | None,
        Option(
            help="Generator it reads: a known name, a folder or a hub id; only configs are read (default: the one "
            "known generator of the verifier's width, else unknown)."
        ),
    ] = None,
    vision_tower: Annotated[
        str | None, Option(help="CLIP vision tower: a folder or a hub id (default: the one the verifier names).")
    ] = None,
) -> None:
    """Convert a verifier from the published layout, and print every step and assumption."""
    from forejudge.files import atomic_folder
    from forejudge.hub import fetch
    from forejudge.verifiers.published_format import PUBLISHED_FILES
    from forejudge.verifiers.published_import import PublishedSource, import_published

    with atomic_folder(out) as folder:
        imported = import_published(
            PublishedSource(fetch(source, PUBLISHED_FILES), statistics, generator, vision_tower)
        )
        imported.verifier.save_pretrained(folder)
    for note in imported.notes:
        echo(note)
    echo(f"written to {out}")


@group.command()
def export(
    source: Annotated[str, Argument(help="A verifier's folder or hub id.")],
    out: Annotated[Path, Argument(help="Folder to write.")],
) -> None:
    """Write a verifier in the published layout, for the code released with the paper."""
    from forejudge.files import atomic_folder
    from forejudge.hub import local_folder
    from forejudge.verifiers.published_export import export_published

    with atomic_folder(out) as folder:
        export_published(local_folder(source), folder)
    echo(f"written to {out}")


def _words(name: str) -> str:
    return name.replace("_", " ")


def _format(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{_words(name)} {_format(each)}" for name, each in value.items())
    if value is None:
        return "none"
    return f"{value:.4g}" if isinstance(value, float) else str(value)
