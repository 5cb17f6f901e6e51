"""`forejudge prompts`: write prompt files whose lines say how their images are evaluated."""

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer import Option
from typer.core import TyperGroup

from forejudge.cli.collect import RecipeName
from forejudge.cli.common import echo
from forejudge.cli.options import OpenSplit
from forejudge.cli.train import DryRun, print_dry_run_notice
from forejudge.errors import InvalidRequest
from forejudge.files import check_writable, write_text
from forejudge.options import MAX_PROMPTS
from forejudge.plugins import load_object, registered

if TYPE_CHECKING:
    from forejudge.prompts.geneval import PromptMetadata

Count = Annotated[int, Option(min=1, max=MAX_PROMPTS, help="Number of prompts.")]
Out = Annotated[Path, Option(metavar="FILE", help="The .jsonl file to write.")]
Seed = Annotated[int, Option(help="Random seed.")]


class PromptCommands(TyperGroup):
    """The command `geneval`, and one command for each prompt set of a plug-in."""

    def list_commands(self, ctx: Any) -> list[str]:
        """Return the names of all commands."""
        return [*super().list_commands(ctx), *registered(lambda plugin: plugin.prompt_sets)]

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """Return a command by its name, None for an unknown one."""
        import_path = registered(lambda plugin: plugin.prompt_sets).get(cmd_name)
        return _prompt_set_command(cmd_name, import_path) if import_path else super().get_command(ctx, cmd_name)


group = typer.Typer(cls=PromptCommands, help="Write prompt files whose lines say how their images are evaluated.")


@group.command()
def geneval(
    objects: Annotated[Path, Option(metavar="FILE", help="Text file with one class name per line.")],
    out: Out,
    count: Annotated[
        int | None, Option(min=1, max=MAX_PROMPTS, help="Number of prompts (default: the recipe's).")
    ] = None,
    recipe: RecipeName = None,
    exclude: Annotated[
        list[Path] | None, Option(metavar="FILE", help="Prompts to leave out, as text or JSON. Repeatable.")
    ] = None,
    seed: Seed = 0,
    dry_run: DryRun = False,
) -> None:
    """Write distinct prompts of GenEval's six tasks over your objects."""
    from forejudge.prompts.geneval import sample_prompts
    from forejudge.prompts.prompt_file import read_lines, read_prompts
    from forejudge.training.presets import load_preset

    if count is None:
        if recipe is None:
            raise InvalidRequest("--count is missing: name one, or a --recipe that has one")
        count = load_preset(recipe).prompts
    _check_name(out)
    names = list(read_lines(objects, "class name").values())
    if names[0].startswith(("[", "{")):
        raise InvalidRequest(f"{objects} is JSON: expected plain text, one class name a line")
    excluded = [line.prompt for path in exclude or [] for line in read_prompts(path)]
    _write(sample_prompts(names, count, seed, excluded), out, dry_run)


def _prompt_set_command(name: str, import_path: str) -> Any:
    app = typer.Typer(add_completion=False)
    description = f"Write prompts of the prompt set {name}. A repeated prompt stands for its next image."
    app.command(name, help=description)(_sample_command(import_path))
    return typer.main.get_command(app)


def _sample_command(import_path: str) -> Callable[..., None]:
    def sample(
        split: Annotated[OpenSplit, Option(help="What the prompts are for.")], count: Count, out: Out, seed: Seed = 0
    ) -> None:
        _check_name(out)
        lines = load_object(import_path, "prompt set")(count, split, seed)
        _write([line.geneval_metadata() for line in lines], out)

    return sample


def _check_name(out: Path) -> None:
    if out.suffix != ".jsonl":
        raise InvalidRequest(f"--out {out} is to hold JSON lines: its name must end in .jsonl")


def _write(prompts: list["PromptMetadata"], out: Path, dry_run: bool = False) -> None:
    from forejudge.prompts.geneval import TASKS

    if dry_run:
        check_writable(out.parent)
    else:
        write_text(out, "".join(f"{metadata.to_line()}\n" for metadata in prompts))
    counts = Counter(metadata.tag for metadata in prompts)
    counts_text = ", ".join(f"{counts[tag]} {tag}" for tag in TASKS)
    echo(f"{len(prompts)} prompts {'for' if dry_run else 'written to'} {out}: {counts_text}")
    if dry_run:
        print_dry_run_notice()
