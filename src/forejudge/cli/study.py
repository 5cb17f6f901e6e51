"""`forejudge study`: what one choice is worth, trained and tested with all else alike."""

from pathlib import Path
from typing import Annotated

import typer
from typer import Argument, Option

from forejudge.errors import InvalidRequest

_RECIPE = "miniature"


def study(
    name: Annotated[str, Argument(help="layers, loss, captions, pooling, data, llm or generator.")],
    recipe: Annotated[str, Option(help="Whose verifier is studied: miniature.")] = _RECIPE,
    training_seeds: Annotated[int, Option(min=1, help="Seeds with which each variant is trained.")] = 3,
    steps: Annotated[int, Option(min=1, help="Steps of each training.")] = 700,
    seeds: Annotated[int, Option(min=1, help="Seeds for each test case.")] = 1,
    per_task: Annotated[int, Option(min=1, help="Test cases for each of the six tasks.")] = 100,
    build: Annotated[Path, Option(help="A finished build.")] = Path("runs/miniature"),
    out: Annotated[Path, Option(help="The folder for NAME.json and NAME.png.")] = Path("benchmarks/studies"),
    device: Annotated[str | None, Option(help="cpu or cuda (default: cuda where there is one).")] = None,
) -> None:
    """Train every variant from recorded states, test them on the same candidates, write a table and a plot.

    `llm` pre-trains its language models first, `generator` trains another generator, which is tested on candidates of
    its own; both leave them in the build's folder. A study that was stopped goes on.
    """
    if recipe != _RECIPE:
        raise InvalidRequest(f"unknown recipe {recipe!r}: expected {_RECIPE}")
    from forejudge.cli.figure_tables import print_variants
    from forejudge.cli.stage_progress import StageProgress
    from forejudge.cli.study_plot import write_plot
    from forejudge.device import resolve_device
    from forejudge.files import write_json
    from forejudge.miniature.recipe import miniature
    from forejudge.miniature.study import Study
    from forejudge.miniature.study_builds import StudyBuilds, variants_of

    variants = variants_of(name)
    with StageProgress() as progress:
        builds = StudyBuilds(miniature(), build, resolve_device(device), progress.show).of(name)
        figures = Study(builds, variants, training_seeds, steps, seeds, per_task).figures()
    write_json(out / f"{name}.json", figures)
    write_plot(figures, out / f"{name}.png")
    print_variants(figures)
    typer.echo(f"written to {out / name}.json and .png")
