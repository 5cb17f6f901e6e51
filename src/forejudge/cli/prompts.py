"""`forejudge prompts`: files of prompts, each line with what its pictures are judged by."""

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer
from typer import Option

from forejudge.cli.collect import RecipeName
from forejudge.cli.train import DryRun, print_dry_run_notice
from forejudge.errors import InvalidRequest
from forejudge.files import check_writable, write_text

if TYPE_CHECKING:
    from forejudge.prompts.geneval import PromptMetadata


group = typer.Typer(help="Files of prompts, each with what its pictures are judged by.")

Count = Annotated[int, Option(help="How many prompts.")]
Out = Annotated[Path, Option(metavar="FILE", help="The .jsonl file to write.")]
Seed = Annotated[int, Option(help="Another seed, other prompts.")]

_OPEN_SPLITS: tuple[Literal["training", "validation"], ...] = ("training", "validation")


@group.command()
def geneval(
    objects: Annotated[Path, Option(metavar="FILE", help="A text file with a class name a line.")],
    out: Out,
    count: Annotated[int | None, Option(help="How many prompts (default: the recipe's).")] = None,
    recipe: RecipeName = None,
    exclude: Annotated[
        list[Path] | None,
        Option(metavar="FILE", help="Prompts that must not come, as text or .jsonl. May be given several times."),
    ] = None,
    seed: Seed = 0,
    dry_run: DryRun = False,
) -> None:
    """Prompts of GenEval's six tasks over your objects, none twice."""
    from forejudge.prompts.geneval import sample_prompts
    from forejudge.prompts.prompt_file import read_lines, read_prompts
    from forejudge.training.presets import load_preset

    if count is None:
        if recipe is None:
            raise InvalidRequest("--count is missing: name one, or a --recipe that has one")
        count = load_preset(recipe).prompts
    _check(count, out)
    names = list(read_lines(objects, "class name").values())
    excluded = [line.prompt for path in exclude or [] for line in read_prompts(path)]
    _write(sample_prompts(names, count, seed, excluded), out, dry_run)


@group.command()
def miniature(
    split: Annotated[str, Option(help="training or validation.")], count: Count, out: Out, seed: Seed = 0
) -> None:
    """Prompts of the miniature's world. One that comes again stands for its next image."""
    _check(count, out)
    known = _parse_split(split)
    from forejudge.miniature.prompts import sample_prompt_lines

    _write([line.geneval_metadata() for line in sample_prompt_lines(count, known, seed)], out)


def _check(count: int, out: Path) -> None:
    if count < 1:
        raise InvalidRequest(f"count = {count} makes no prompt: it must be at least 1")
    if out.suffix != ".jsonl":
        raise InvalidRequest(f"--out {out} would be read as plain prompts: its name must end in .jsonl")


def _parse_split(split: str) -> Literal["training", "validation"]:
    for known in _OPEN_SPLITS:
        if split == known:
            return known
    raise InvalidRequest(f"--split {split!r} is unknown: expected {' or '.join(_OPEN_SPLITS)}")


def _write(prompts: list["PromptMetadata"], out: Path, dry_run: bool = False) -> None:
    from forejudge.prompts.geneval import TASKS

    if dry_run:
        check_writable(out.parent)
    else:
        write_text(out, "".join(f"{metadata.to_line()}\n" for metadata in prompts))
    counts = Counter(metadata.tag for metadata in prompts)
    counts_text = ", ".join(f"{counts[tag]} {tag}" for tag in TASKS)
    typer.echo(f"{len(prompts)} prompts {'for' if dry_run else 'written to'} {out}: {counts_text}")
    if dry_run:
        print_dry_run_notice()
