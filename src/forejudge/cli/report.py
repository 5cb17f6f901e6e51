"""`forejudge report`: a finished evaluation as one page."""

from pathlib import Path
from typing import Annotated

import typer
from typer import Argument, Option

from forejudge.cli.progress import spinner


def report(
    folder: Annotated[Path, Argument(metavar="DIR", help="A finished folder of `forejudge eval`.")],
    out: Annotated[
        Path | None, Option(metavar="DIR", help="Where report.html and its plots go (default: the folder itself).")
    ] = None,
    study: Annotated[
        Path | None,
        Option(metavar="FILE", help="What verifiers at other cuts reach: a JSON list with `cut` and `micro` of each."),
    ] = None,
) -> None:
    """Write tables, plots and a gallery of an evaluation as one HTML page that needs no network."""
    with spinner("drawing"):
        from forejudge.report.page import write_report

        page = write_report(folder, out or folder, study)
    typer.echo(f"written to {page}")
