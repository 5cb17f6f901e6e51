"""`--dry-run`: what was resolved and how much work it is, shown in the place of the work."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer import Option

if TYPE_CHECKING:
    from pydantic import BaseModel

    from forejudge.training.work import Work

DryRun = Annotated[
    bool,
    Option(
        "--dry-run",
        help="Check everything, measure a little, and print the recipe with its operations, disk and time; --out stays "
        "as it is.",
    ),
]
_ENDING = "nothing was written; without --dry-run the run begins"


def show_plan(recipe: "BaseModel", settings: dict[str, Any]) -> None:
    """What a run was asked for: its recipe as JSON, and whatever else decides it."""
    typer.echo(recipe.model_dump_json(indent=2))
    for name, value in settings.items():
        typer.echo(f"{name}: {value}")


def show_work(work: "Work", out: Path, device: str) -> None:
    """What it amounts to. Raises OutputError where the disk is too small for it."""
    from forejudge.training.disk_space import check_room, free_bytes, in_words

    disk = ", ".join(f"{what} {in_words(size)}" for what, size in work.stored.items() if size)
    typer.echo(f"work: {work.amount}")
    typer.echo(f"operations: {work.flops:.3g} FLOP")
    typer.echo(f"disk: {disk or 'nothing'}; {in_words(free_bytes(out))} are free")
    typer.echo(f"time on {device}: about {_time(work.seconds)} (from {work.measured})")
    check_room(out, sum(work.stored.values()), " and ".join(work.stored))
    end()


def end() -> None:
    """Say how to start."""
    typer.echo(_ENDING)


def _time(seconds: float) -> str:
    for unit, length in (("days", 48 * 3600), ("h", 3600), ("min", 60)):
        if seconds >= length:
            return f"{seconds / (24 * 3600 if unit == 'days' else length):.1f} {unit}"
    return f"{seconds:.1f} s"
