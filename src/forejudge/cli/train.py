"""`forejudge train`: the two stages that make a verifier."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer
from typer import Option

from forejudge.cli.common import load_with_license_notice
from forejudge.cli.progress import spinner
from forejudge.files import check_writable

if TYPE_CHECKING:
    from pydantic import BaseModel

    from forejudge.generators.base import Generator as LoadedGenerator
    from forejudge.progress import ProgressCallback
    from forejudge.training.config import TrainingRecipe
    from forejudge.training.estimate import CostEstimate


# FOLDED: `--dry-run`: what was resolved and how much work it is, shown in the place of the work.


DryRun = Annotated[
    bool,
    Option(
        "--dry-run",
        help="Check everything, measure a little, and print the recipe with its operations, disk and time; --out stays "
        "as it is.",
    ),
]
_DRY_RUN_NOTICE = "nothing was written; without --dry-run the run begins"


def print_plan(recipe: "BaseModel", settings: dict[str, Any]) -> None:
    """What a run was asked for: its recipe as JSON, and whatever else decides it."""
    typer.echo(recipe.model_dump_json(indent=2))
    for name, value in settings.items():
        typer.echo(f"{name}: {value}")


def print_cost_estimate(estimate: "CostEstimate", out: Path, device: str) -> None:
    """What it amounts to. Raises OutputError where the disk is too small for it."""
    from forejudge.files import check_room, free_bytes, in_words

    disk = ", ".join(f"{label} {in_words(size)}" for label, size in estimate.disk_bytes.items() if size)
    typer.echo(f"work: {estimate.description}")
    typer.echo(f"operations: {estimate.flops:.3g} FLOP")
    typer.echo(f"disk: {disk or 'nothing'}; {in_words(free_bytes(out))} are free")
    typer.echo(f"time on {device}: about {_time(estimate.seconds)} (from {estimate.measurement})")
    check_room(out, sum(estimate.disk_bytes.values()), " and ".join(estimate.disk_bytes))
    print_dry_run_notice()


def print_dry_run_notice() -> None:
    """Say how to start."""
    typer.echo(_DRY_RUN_NOTICE)


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
    from forejudge.device import is_main_process
    from forejudge.training.align import align as run_alignment
    from forejudge.training.dataset import TrainingData
    from forejudge.training.estimate import check_inputs, estimate_alignment
    from forejudge.training.presets import load_preset

    preset = load_preset(recipe)
    resolved_recipe, generator_name = _apply_changes(preset.align, reads, changes), generator or preset.generator
    check_inputs(resolved_recipe, [captions, validation])
    if dry_run:
        with _loaded_for_estimate(generator_name, device, dtype, out) as loaded:
            estimate = estimate_alignment(resolved_recipe, loaded, captions, validation, out)
        paths = {"generator": generator_name, "captions": captions, "validation": validation, "out": out}
        return _show(resolved_recipe, estimate, paths, loaded)
    with _training_session(generator_name, device, dtype) as (loaded, show):
        run_alignment(resolved_recipe, loaded, TrainingData.of(captions, validation, loaded), out, show)
    if is_main_process():
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
    from forejudge.device import is_main_process
    from forejudge.training.dataset import TrainingData
    from forejudge.training.estimate import check_inputs, estimate_verification
    from forejudge.training.presets import load_preset
    from forejudge.training.verify import verify as run_verification

    preset = load_preset(recipe)
    resolved_recipe, generator_name = _apply_changes(preset.verify, reads, changes), generator or preset.generator
    check_inputs(resolved_recipe, [labels, validation], aligned)
    if dry_run:
        with _loaded_for_estimate(generator_name, device, dtype, out) as loaded:
            estimate = estimate_verification(resolved_recipe, loaded, labels, validation, out, aligned)
        paths = {
            "generator": generator_name,
            "labels": labels,
            "validation": validation,
            "aligned": aligned,
            "out": out,
        }
        return _show(resolved_recipe, estimate, paths, loaded)
    with _training_session(generator_name, device, dtype) as (loaded, progress):
        data = TrainingData.of(labels, validation, loaded)
        run_verification(resolved_recipe, loaded, data, out, progress, aligned)
    if is_main_process():
        show(out)
        typer.echo(f"written to {out}; try: forejudge generate PROMPT --generator {generator_name} --verifier {out}")


def _apply_changes(preset: AnyRecipe, reads: str | None, changes: list[str] | None) -> AnyRecipe:
    """Raises InvalidRequest for a change that cannot be."""
    from forejudge.training.config import apply_changes

    return apply_changes(preset, [*([f"reads={reads}"] if reads else []), *(changes or [])])


@contextmanager
def _loaded_for_estimate(generator: str, device: str | None, dtype: str, out: Path) -> "Iterator[LoadedGenerator]":
    """The generator, loaded, once it is known that results can be written."""
    check_writable(out)
    with spinner("measuring"):
        yield load_with_license_notice(generator, device, dtype)


def _show(
    recipe: "TrainingRecipe", estimate: "CostEstimate", paths: dict[str, Any], generator: "LoadedGenerator"
) -> None:
    from forejudge.device import is_main_process

    if is_main_process():
        print_plan(recipe, paths)
        print_cost_estimate(estimate, paths["out"], str(generator.device))


@contextmanager
def _training_session(
    generator: str, device: str | None, dtype: str
) -> "Iterator[tuple[LoadedGenerator, ProgressCallback]]":
    """The generator, loaded, and who shows progress. Ctrl-C says how to go on."""
    from forejudge.cli.progress import StageProgress

    with spinner("loading"):
        loaded = load_with_license_notice(generator, device, dtype)
    try:
        with StageProgress() as progress:
            yield loaded, progress.show
    except KeyboardInterrupt:
        raise KeyboardInterrupt("the same command goes on from the last checkpoint") from None
