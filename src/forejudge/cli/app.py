"""The `forejudge` command. Commands import models when they run, so that help and version appear at once."""

import logging
from collections.abc import Sequence
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from forejudge import __version__
from forejudge.cli import evaluate, geneval, prompts, train, verifier
from forejudge.cli.collect import caption, label
from forejudge.cli.generate import generate
from forejudge.cli.models import models
from forejudge.cli.profile import profile
from forejudge.cli.report import report
from forejudge.cli.study import study
from forejudge.errors import ForejudgeError, InvalidRequest


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


app = typer.Typer(cls=Commands, pretty_exceptions_enable=False, add_completion=False)
app.command()(generate)
app.command()(models)
app.command()(label)
app.command()(caption)
app.command()(report)
app.command()(study)
app.command()(profile)
app.add_typer(evaluate.group, name="eval")
app.add_typer(geneval.group, name="geneval")
app.add_typer(prompts.group, name="prompts")
app.add_typer(train.group, name="train")
app.add_typer(verifier.group, name="verifier")


def _show_version(value: bool) -> None:
    if value:
        typer.echo(f"forejudge {__version__}")
        raise typer.Exit


@app.callback(invoke_without_command=True)
def root(
    context: typer.Context,
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    """Best-of-N for one-step diffusion transformers: score candidates early, finish only the best."""
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line on `arguments`, by default those of the process. Raises SystemExit when done."""
    logger, handler = logging.getLogger("forejudge"), StderrHandler()
    logger.addHandler(handler)
    try:
        app(args=arguments, prog_name="forejudge")
    finally:
        logger.removeHandler(handler)
