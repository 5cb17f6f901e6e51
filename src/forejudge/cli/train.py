"""`forejudge train`: the two stages that make a verifier."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer
from typer import Option

from forejudge.cli.licences import tell_licences
from forejudge.cli.progress import waiting
from forejudge.errors import InvalidRequest

if TYPE_CHECKING:
    from forejudge.generators.base import Generator as LoadedGenerator
    from forejudge.progress import Report
    from forejudge.training.recipe import TrainingRecipe

AnyRecipe = TypeVar("AnyRecipe", bound="TrainingRecipe")

group = typer.Typer(help="Train a verifier for a generator: align its connector, then teach it yes and no.")

Generator = Annotated[str, Option(help="The generator that drew the candidates: a known one, a folder or a hub id.")]
Validation = Annotated[Path, Option(help="The same of held-out prompts: the best checkpoint is chosen by them.")]
Out = Annotated[Path, Option(help="The folder of the run and its result; a stopped run goes on.")]
RecipeName = Annotated[str, Option("--recipe", help="A known recipe: miniature or sana-sprint-1.6b.")]
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
    generator: Generator = "miniature",
    recipe: RecipeName = "miniature",
    reads: Reads = None,
    changes: Changes = None,
    device: Device = None,
    dtype: Dtype = "auto",
) -> None:
    """Stage 1: train the connector alone to make the language model say what a picture shows."""
    from forejudge.device import is_first_process
    from forejudge.training.align import align as run_alignment
    from forejudge.training.recipe import ALIGN_RECIPES

    chosen = _recipe(ALIGN_RECIPES, recipe, reads, changes)
    with _at_work(generator, device, dtype) as (loaded, show):
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
    generator: Generator = "miniature",
    recipe: RecipeName = "miniature",
    reads: Reads = None,
    changes: Changes = None,
    device: Device = None,
    dtype: Dtype = "auto",
) -> None:
    """Stage 2: train connector and language model to answer whether the finished picture will fit its prompt."""
    from forejudge.cli.verifier import show
    from forejudge.device import is_first_process
    from forejudge.training.recipe import VERIFY_RECIPES
    from forejudge.training.verify import verify as run_verification

    chosen = _recipe(VERIFY_RECIPES, recipe, reads, changes)
    with _at_work(generator, device, dtype) as (loaded, progress):
        run_verification(chosen, loaded, labels, validation, out, progress, aligned)
    if is_first_process():
        show(out)
        typer.echo(f"written to {out}; try: forejudge generate PROMPT --generator {generator} --verifier {out}")


def _recipe(known: Mapping[str, AnyRecipe], name: str, reads: str | None, changes: list[str] | None) -> AnyRecipe:
    """Raises InvalidRequest for an unknown recipe or change."""
    from forejudge.training.recipe import changed

    if name not in known:
        raise InvalidRequest(f"unknown recipe {name!r}: expected one of {', '.join(known)}")
    return changed(known[name], [*([f"reads={reads}"] if reads else []), *(changes or [])])


@contextmanager
def _at_work(generator: str, device: str | None, dtype: str) -> "Iterator[tuple[LoadedGenerator, Report]]":
    """The generator, loaded, and who shows progress. Ctrl-C says how to go on."""
    from forejudge.cli.stage_progress import StageProgress
    from forejudge.device import is_first_process, resolve_device, resolve_dtype
    from forejudge.generators import load_generator

    with waiting("loading"):
        where = resolve_device(device)
        loaded = load_generator(generator, where, resolve_dtype(dtype, where))
    if is_first_process():
        tell_licences(loaded.sources)
    try:
        with StageProgress() as progress:
            yield loaded, progress.show
    except KeyboardInterrupt:
        raise KeyboardInterrupt("the same command goes on from the last checkpoint") from None
