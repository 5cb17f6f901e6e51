"""`forejudge train`: the two stages that make a verifier, and --dry-run for every long command."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer
from typer import Option

from forejudge.cli.common import echo, load_with_license_notice
from forejudge.cli.progress import spinner
from forejudge.files import check_writable

if TYPE_CHECKING:
    from pydantic import BaseModel

    from forejudge.generators.base import Generator as LoadedGenerator
    from forejudge.progress import ProgressCallback
    from forejudge.training.config import TrainingRecipe
    from forejudge.training.estimate import CostEstimate

AnyRecipe = TypeVar("AnyRecipe", bound="TrainingRecipe")

group = typer.Typer(help="Train a verifier for a generator: align its connector, then teach it yes and no.")

Generator = Annotated[
    str | None,
    Option(help="Generator of the candidates: a known name, a folder or a hub id (default: the recipe's)."),
]
Validation = Annotated[Path, Option(help="Candidates of held-out prompts, which choose the best checkpoint.")]
Out = Annotated[Path, Option(help="Folder of the run and its result; a stopped run continues.")]
RecipeName = Annotated[str, Option("--recipe", help="Known recipe, such as sana-sprint-1.6b.")]
Changes = Annotated[
    list[str] | None,
    Option("--set", metavar="NAME=VALUE", help="Change a field of the recipe, such as steps=500; repeatable."),
]
Reads = Annotated[str | None, Option(help="Verifier input: hidden:K, latent, clip or preview (default: the recipe's).")]
Device = Annotated[str | None, Option(help="Device: cpu, cuda or mps (default: cuda or mps if there is one).")]
Dtype = Annotated[str, Option(help="Dtype of the generator: auto, float32, bfloat16 or float16.")]
DryRun = Annotated[
    bool,
    Option(
        "--dry-run",
        help="Check every input, measure a little, and print the recipe with its FLOPs, disk and time; --out stays "
        "unchanged.",
    ),
]
_DRY_RUN_NOTICE = "nothing was written; without --dry-run the run begins"


@group.command()
def align(
    captions: Annotated[Path, Option(help="Captioned candidates: a folder of `forejudge caption`.")],
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
    """Stage 1: train the connector alone to make the language model say what an image shows."""
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
    with training_session(generator_name, device, dtype) as (loaded, show):
        run_alignment(resolved_recipe, loaded, TrainingData.of(captions, validation, loaded), out, show)
    if is_main_process():
        echo(f"written to {out}; next: forejudge train verify --aligned {out}")


@group.command()
def verify(
    labels: Annotated[Path, Option(help="Labeled candidates: a folder of `forejudge label`.")],
    validation: Validation,
    out: Out,
    aligned: Annotated[
        Path | None, Option(help="Folder of stage 1 (default: a new connector, without alignment).")
    ] = None,
    generator: Generator = None,
    recipe: RecipeName = "miniature",
    reads: Reads = None,
    changes: Changes = None,
    device: Device = None,
    dtype: Dtype = "auto",
    dry_run: DryRun = False,
) -> None:
    """Stage 2: train connector and language model to answer whether the finished image will fit its prompt."""
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
    with training_session(generator_name, device, dtype) as (loaded, progress):
        data = TrainingData.of(labels, validation, loaded)
        run_verification(resolved_recipe, loaded, data, out, progress, aligned)
    if is_main_process():
        show(out)
        echo(f"written to {out}; try: forejudge generate PROMPT --generator {generator_name} --verifier {out}")


def print_plan(recipe: "BaseModel", settings: dict[str, Any]) -> None:
    """Print a run's recipe as JSON, and its other settings line by line."""
    echo(recipe.model_dump_json(indent=2))
    for name, value in settings.items():
        echo(f"{name}: {value}")


def print_cost_estimate(estimate: "CostEstimate", out: Path, device: str) -> None:
    """Print the cost estimate of a run. Raises OutputError if the disk is too small for it."""
    from forejudge.files import check_room, free_bytes, in_words

    disk = ", ".join(f"{label} {in_words(size)}" for label, size in estimate.disk_bytes.items() if size)
    echo(f"work: {estimate.description}")
    echo(f"operations: {estimate.flops:.3g} FLOP")
    echo(f"disk: {disk or 'nothing'}; {in_words(free_bytes(out))} are free")
    echo(f"time on {device}: about {_time(estimate.seconds)} (from {estimate.measurement})")
    check_room(out, sum(estimate.disk_bytes.values()), " and ".join(estimate.disk_bytes))
    print_dry_run_notice()


def print_dry_run_notice() -> None:
    """Print how to start the run."""
    echo(_DRY_RUN_NOTICE)


def _time(seconds: float) -> str:
    for unit, length in (("days", 48 * 3600), ("h", 3600), ("min", 60)):
        if seconds >= length:
            return f"{seconds / (24 * 3600 if unit == 'days' else length):.1f} {unit}"
    return f"{seconds:.1f} s"


def _apply_changes(preset: AnyRecipe, reads: str | None, changes: list[str] | None) -> AnyRecipe:
    """Apply --reads and --set. Raises InvalidRequest for an unknown field or a wrong value."""
    from forejudge.training.config import apply_changes

    return apply_changes(preset, [*([f"reads={reads}"] if reads else []), *(changes or [])])


@contextmanager
def _loaded_for_estimate(generator: str, device: str | None, dtype: str, out: Path) -> "Iterator[LoadedGenerator]":
    """Load the generator after checking that results can be written."""
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
def training_session(
    generator: str, device: str | None, dtype: str
) -> "Iterator[tuple[LoadedGenerator, ProgressCallback]]":
    """Yield the loaded generator and a progress callback; Ctrl-C says how to continue."""
    from forejudge.cli.progress import StageProgress

    with spinner("loading"):
        loaded = load_with_license_notice(generator, device, dtype)
    try:
        with StageProgress() as progress:
            yield loaded, progress.show
    except KeyboardInterrupt:
        raise KeyboardInterrupt("the same command continues from the last checkpoint") from None
