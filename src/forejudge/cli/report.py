"""`forejudge report`: a finished evaluation as one HTML page."""

from pathlib import Path
from typing import Annotated

from typer import Argument, Option

from forejudge.cli.common import echo
from forejudge.cli.progress import spinner


def report(
    folder: Annotated[Path, Argument(metavar="DIR", help="Finished folder of `forejudge eval`.")],
    out: Annotated[
        Path | None, Option(metavar="DIR", help="Output folder for report.html and its plots (default: DIR itself).")
    ] = None,
    study: Annotated[
        Path | None,
        Option(metavar="FILE", help="Study of prefix lengths to plot: the JSON file of `forejudge study layers`."),
    ] = None,
) -> None:
    """Write tables, plots and a gallery of an evaluation as one HTML page that needs no network."""
    with spinner("rendering"):
        from forejudge.report.page import write_report

        page = write_report(folder, out or folder, study)
    echo(f"written to {page}")
