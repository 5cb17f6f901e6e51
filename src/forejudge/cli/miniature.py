"""`forejudge miniature`: build its weights, and test them."""

import json
from pathlib import Path
from typing import Annotated

import typer
from typer import Option

from forejudge.cli.progress import waiting
from forejudge.files import write_json

group = typer.Typer(help="The small world: build its generator and verifiers, and test them.")

Device = Annotated[str | None, Option(help="cpu or cuda (default: cuda where there is one).")]


@group.command()
def build(
    only: Annotated[
        str | None,
        Option(
            help="world, autoencoder, generator, language-model, clip, classifier, verifier or baselines "
            "(default: all)."
        ),
    ] = None,
    out: Annotated[Path, Option(help="The folder it is built in.")] = Path("runs/miniature"),
    device: Device = None,
) -> None:
    """Train every weight of the miniature. A stopped build goes on where it was."""
    from forejudge.cli.stage_progress import StageProgress
    from forejudge.device import resolve_device
    from forejudge.miniature.build import Build
    from forejudge.miniature.recipe import miniature

    where = resolve_device(device)
    with StageProgress() as progress:
        Build(miniature(), out, where, progress.show).run(only)
    typer.echo(f"built in {out}; try: forejudge generate PROMPT --generator {out}/generator --verifier {out}/verifier")


@group.command()
def edges(
    generator: Annotated[str, Option(help="The miniature or a folder.")] = "miniature",
    per_task: Annotated[int, Option(min=1, help="Test cases for each of the six tasks.")] = 10,
    out: Annotated[Path, Option(help="The JSON file to write.")] = Path("benchmarks/miniature-edges.json"),
    device: Device = None,
) -> None:
    """How sharp the generator draws, beside the renderer it learnt from."""
    from forejudge.cli.stage_progress import StageProgress
    from forejudge.device import resolve_device, resolve_dtype
    from forejudge.generators import load_generator
    from forejudge.miniature.edges import edge_figures

    drawn_by = load_generator(generator, resolve_device(device), resolve_dtype("float32"))
    with StageProgress() as progress:
        figures = edge_figures(drawn_by, per_task, progress.show)
    write_json(out, figures)
    typer.echo(json.dumps(figures, indent=1))


@group.command("time")
def measure(
    out: Annotated[Path, Option(help="The JSON file to write.")] = Path("benchmarks/miniature-time.json"),
    device: Device = None,
) -> None:
    """How long Best-of-8 takes here, and how well time budgets are kept."""
    from forejudge import BestOfN
    from forejudge.cli.stage_progress import StageProgress
    from forejudge.miniature.timing import timing_figures

    with StageProgress() as progress:
        figures = timing_figures(BestOfN.from_pretrained(device=device), progress.show)
    write_json(out, figures)
    typer.echo(json.dumps(figures, indent=1))


@group.command()
def pictures(
    out: Annotated[Path, Option(help="The folder for flow.png and gallery.png.")] = Path("docs/pictures"),
    device: Device = None,
) -> None:
    """Draw the pictures of the README anew."""
    from forejudge import BestOfN
    from forejudge.cli.pictures import write_pictures

    with waiting("drawing"):
        write_pictures(BestOfN.from_pretrained(device=device), out)
    typer.echo(f"written to {out}")
