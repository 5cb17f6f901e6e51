"""The `forejudge` command: a table of commands, and errors as one line with a status."""

import logging
import sys
from collections.abc import Sequence
from importlib.metadata import version
from pkgutil import resolve_name
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from forejudge.errors import ForejudgeError, InvalidRequest

COMMANDS = {
    "generate": ("generate:generate", "Generate candidates of a prompt, score them early and finish the best."),
    "models": ("models:models", "List known models and supported pipelines."),
    "profile": ("profile:profile", "Measure time, FLOPs and memory of stages and whole searches, beside the roofline."),
    "prompts": ("prompts:group", "Write prompt files whose lines say how their images are evaluated."),
    "label": ("collect:label", "Generate candidates and label each correct or wrong, to train a verifier on."),
    "caption": ("collect:caption", "Generate candidates and describe what each shows, to align a connector on."),
    "train": ("train:group", "Train a verifier for a generator: align its connector, then teach it yes and no."),
    "verifier": ("verifier:group", "Show a verifier, import a published one, or export one to the published layout."),
    "eval": ("evaluate:group", "Compare verifiers on a benchmark, at equal N and at equal time."),
    "study": ("study:study", "Train verifiers that differ in one choice, and compare them on held-out prompts."),
    "report": ("report:report", "Write tables, plots and a gallery of an evaluation as one HTML page."),
    "geneval": ("geneval:group", "Convert GenEval's detector, or score a folder of images."),
}
"""Commands by name: module:attribute below `forejudge.cli`, and description. Only the one that runs is imported."""


class Commands(TyperGroup):
    """Group of commands that reports an error as one line on stderr and a status.

    The status is 2 for an invalid request, 130 for Ctrl-C, and 1 for all others.
    """

    def invoke(self, ctx: Any) -> Any:
        """Run a command, and exit with a status if it fails."""
        try:
            return super().invoke(ctx)
        except ForejudgeError as error:
            _exit_with_error(str(error), 2 if isinstance(error, InvalidRequest) else 1)
        except typer.Exit:  # a RuntimeError, too
            raise
        except RuntimeError as error:
            from forejudge.compiling import compile_error
            from forejudge.device import is_out_of_memory

            if reason := compile_error(error):
                _exit_with_error(f"torch.compile failed ({reason}): leave out --compile", 1)
            if not is_out_of_memory(error):
                raise
            _exit_with_error("out of memory: choose a smaller --batch-size, image size or --dtype", 1)
        except KeyboardInterrupt as error:
            _exit_with_error(": ".join(["interrupted", *map(str, error.args)]), 130)


def _exit_with_error(message: str, status: int) -> None:
    typer.echo(f"error: {' '.join(message.splitlines())}", err=True)
    raise typer.Exit(status)


class StderrHandler(logging.Handler):
    """Handler that shows what the library logs, such as warnings, as lines on stderr."""

    def emit(self, record: logging.LogRecord) -> None:
        """Write one line, in yellow on a terminal."""
        typer.secho(f"{record.levelname.lower()}: {record.getMessage()}", fg="yellow", err=True)


def _show_version(value: bool) -> None:
    if value:
        typer.echo(f"forejudge {version('forejudge')}")
        raise typer.Exit


def _root(
    context: typer.Context,
    show_version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    """Best-of-N for one-step diffusion transformers: score candidates early, finish only the best."""
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())


def _app(arguments: Sequence[str]) -> typer.Typer:
    """Build the command line with the command that `arguments` name, and placeholders for all others."""
    app = typer.Typer(cls=Commands, pretty_exceptions_enable=False, add_completion=False)
    app.callback(invoke_without_command=True)(_root)
    requested = next((argument for argument in arguments if not argument.startswith("-")), None)
    for name, (path, description) in COMMANDS.items():
        command: Any = resolve_name(f"forejudge.cli.{path}") if name == requested else _placeholder
        if isinstance(command, typer.Typer):
            app.add_typer(command, name=name)
        else:
            app.command(name, short_help=description)(command)
    return app


def _placeholder() -> None:
    """Stand for a command in the list of commands."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line on `arguments`, by default those of the process. Raises SystemExit when done."""
    arguments = sys.argv[1:] if arguments is None else arguments
    logger, handler = logging.getLogger("forejudge"), StderrHandler()
    logger.addHandler(handler)
    try:
        _app(arguments)(args=arguments, prog_name="forejudge")
    finally:
        logger.removeHandler(handler)
