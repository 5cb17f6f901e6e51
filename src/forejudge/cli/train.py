"""`forejudge train`: the two stages that make a verifier."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer
from typer import Option

from forejudge.cli.common import load_told
from forejudge.cli.progress import waiting
from forejudge.files import check_writable

if TYPE_CHECKING:
    from pydantic import BaseModel

    from forejudge.generators.base import Generator as LoadedGenerator
    from forejudge.progress import Report
    from forejudge.training.config import TrainingRecipe
    from forejudge.training.estimate import Work


# FOLDED: `--dry-run`: what was resolved and how much work it is, shown in the place of the work.


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
    from forejudge.files import check_room, free_bytes, in_words

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


AnyRecipe = TypeVar("AnyRecipe", bound="TrainingRecipe")

group = typer.Typer(help="Train a verifier for a generator: align its connector, then teach it yes and no.")

Generator = Annotated[
    str | None,
    Option(help="What drew the candidates: a known generator, a folder or a hub id (default: the recipe's)."),
]
Validation = Annotated[Path, Option(help="The same of held-out prompts: the best checkpoint is chosen by them.")]
Out = Annotated[Path, Option(help="The folder of the run and its result; a stopped run goes on.")]
RecipeName = Annotated[str, Option("--recipe", help="A known recipe, such as sana-sprint-1.6b.")]
Changes = Annotated[
    list[str] | None,
    Option("--set", metavar="NAME=VALUE", help="Change a field of the recipe, such as steps=500; repeatable."),
]
Reads = Annotated[str | None, Option(help="What the verifier reads: hidden:K, latent or clip (default: the recipe's).")]
Device = Annotated[str | None, Option(help="cpu, cuda or mps (default: cuda or mps where there is one).")]
Dtype = Annotated[str, Option(help="Of the generator: auto, float32, bfloat16 or float16.")]


@group.command()
def align(
    captions: Annotated[Path, Option(help="Captioned candidates, a folder of `forejudge caption`.")],
    validation: Validation,
    out: Out,
    generator: Generator = None,
    recipe: RecipeName = "miniature",
    reads: Reads = None,
    changes: Changes = None,
    device: Device = None,
    dtype: Dtype = "auto",
    dry_run: DryRun = False,
) -> None:
    """Stage 1: train the connector alone to make the language model say what a picture shows."""
    from forejudge.device import is_first_process
    from forejudge.training.align import align as run_alignment
    from forejudge.training.estimate import alignment_work, check_inputs
    from forejudge.training.presets import known_recipe

    known = known_recipe(recipe)
    chosen, drawn_by = _changed(known.align, reads, changes), generator or known.generator
    check_inputs(chosen, [captions, validation])
    if dry_run:
        with _measuring(drawn_by, device, dtype, out) as loaded:
            work = alignment_work(chosen, loaded, captions, validation, out)
        paths = {"generator": drawn_by, "captions": captions, "validation": validation, "out": out}
        return _show(chosen, work, paths, loaded)
    with _at_work(drawn_by, device, dtype) as (loaded, show):
        run_alignment(chosen, loaded, captions, validation, out, show)
    if is_first_process():
        typer.echo(f"written to {out}; next: forejudge train verify --aligned {out}")


@group.command()
def verify(
    labels: Annotated[Path, Option(help="Labelled candidates, a folder of `forejudge label`.")],
    validation: Validation,
    out: Out,
    aligned: Annotated[
        Path | None, Option(help="What stage 1 left (default: a new connector, without alignment).")
    ] = None,
    generator: Generator = None,
    recipe: RecipeName = "miniature",
    reads: Reads = None,
    changes: Changes = None,
    device: Device = None,
    dtype: Dtype = "auto",
    dry_run: DryRun = False,
) -> None:
    """Stage 2: train connector and language model to answer whether the finished picture will fit its prompt."""
    from forejudge.cli.verifier import show
    from forejudge.device import is_first_process
    from forejudge.training.estimate import check_inputs, verification_work
    from forejudge.training.presets import known_recipe
    from forejudge.training.verify import verify as run_verification

    known = known_recipe(recipe)
    chosen, drawn_by = _changed(known.verify, reads, changes), generator or known.generator
    check_inputs(chosen, [labels, validation], aligned)
    if dry_run:
        with _measuring(drawn_by, device, dtype, out) as loaded:
            work = verification_work(chosen, loaded, labels, validation, out, aligned)
        paths = {"generator": drawn_by, "labels": labels, "validation": validation, "aligned": aligned, "out": out}
        return _show(chosen, work, paths, loaded)
    with _at_work(drawn_by, device, dtype) as (loaded, progress):
        run_verification(chosen, loaded, labels, validation, out, progress, aligned)
    if is_first_process():
        show(out)
        typer.echo(f"written to {out}; try: forejudge generate PROMPT --generator {drawn_by} --verifier {out}")


def _changed(known: AnyRecipe, reads: str | None, changes: list[str] | None) -> AnyRecipe:
    """Raises InvalidRequest for a change that cannot be."""
    from forejudge.training.config import changed

    return changed(known, [*([f"reads={reads}"] if reads else []), *(changes or [])])


@contextmanager
def _measuring(generator: str, device: str | None, dtype: str, out: Path) -> "Iterator[LoadedGenerator]":
    """The generator, loaded, once it is known that results can be written."""
    check_writable(out)
    with waiting("measuring"):
        yield load_told(generator, device, dtype)


def _show(recipe: "TrainingRecipe", work: "Work", paths: dict[str, Any], generator: "LoadedGenerator") -> None:
    from forejudge.device import is_first_process

    if is_first_process():
        show_plan(recipe, paths)
        show_work(work, paths["out"], str(generator.device))


@contextmanager
def _at_work(generator: str, device: str | None, dtype: str) -> "Iterator[tuple[LoadedGenerator, Report]]":
    """The generator, loaded, and who shows progress. Ctrl-C says how to go on."""
    from forejudge.cli.progress import StageProgress

    with waiting("loading"):
        loaded = load_told(generator, device, dtype)
    try:
        with StageProgress() as progress:
            yield loaded, progress.show
    except KeyboardInterrupt:
        raise KeyboardInterrupt("the same command goes on from the last checkpoint") from None
