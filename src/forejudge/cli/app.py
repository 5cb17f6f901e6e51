"""The `forejudge` command: a table of commands, and errors as one line with a status."""

import logging
import os
import sys
from collections.abc import Sequence
from importlib.metadata import version
from io import TextIOWrapper
from pkgutil import resolve_name
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from forejudge.cli.common import echo, held
from forejudge.errors import ForejudgeError, InvalidRequest, Terminated, message_line

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
    "simulate": ("simulate:simulate", "Simulate search policies on recorded verdicts: quality against mean cost."),
    "study": ("study:study", "Train verifiers that differ in one choice, and compare them on held-out prompts."),
    "report": ("report:report", "Write tables, plots and a gallery of an evaluation as one HTML page."),
    "geneval": ("geneval:group", "Convert GenEval's detector, or score a folder of images."),
}
"""Commands by name: module:attribute below `forejudge.cli`, and description. Only the one that runs is imported."""

_OUT_OF_MEMORY = "out of memory: choose a smaller --batch-size, image size or --dtype"
# How imports fail where memory is limited: by the dynamic linker, and by Python where it cannot even raise MemoryError.
_NO_ROOM_FOR_CODE = (
    "failed to map segment",
    "annot allocate memory",
    "without exception set",
    "without setting an exc",
)
_DEBUG = "FOREJUDGE_DEBUG"
_DEBUG_ADVICE = f"{_DEBUG}=1 shows where"


class Commands(TyperGroup):
    """Group of commands that reports an error as one line on stderr and a status.

    The status is 2 for an invalid request, 130 for Ctrl-C, 143 for SIGTERM, and 1 for all others.
    """

    def invoke(self, ctx: Any) -> Any:
        """Run a command, and exit with a status if it fails."""
        try:
            _check_none_is_empty(ctx.obj)
            return super().invoke(ctx)
        except (typer.Exit, BrokenPipeError):  # a RuntimeError, and an OSError of a reader that has enough
            raise
        except (Exception, KeyboardInterrupt) as error:
            if (ending := _ending(error)) is None or os.environ.get(_DEBUG):
                raise
            _exit_with_error(*ending)


def _ending(error: BaseException) -> tuple[str, int] | None:
    """Return message and status of an error; None for one that only a fault of the program raises."""
    match error:
        case KeyboardInterrupt():
            terminated = isinstance(error, Terminated) or isinstance(error.__context__, Terminated)
            kept = " ".join(map(str, error.args)) or "files already written stay"
            return f"{'terminated' if terminated else 'interrupted'}: {kept}", 143 if terminated else 130
        case ForejudgeError():
            return str(error), 2 if isinstance(error, InvalidRequest) else 1
        case MemoryError():
            return _OUT_OF_MEMORY, 1
        case ImportError() | SystemError() if any(text in str(error) for text in _NO_ROOM_FOR_CODE):
            return "too little memory to load the libraries: free some, or raise the limit (ulimit -v)", 1
        case OSError():
            name = f"{error.filename}: " if error.filename else ""
            problem = error.strerror or str(error) or type(error).__name__
            return f"{name}{problem}; check the path, its permissions and the space left, then run the same again", 1
        case EOFError() | RecursionError() | UnicodeError():
            return f"a file or text that was given cannot be read ({type(error).__name__}: {error}); {_DEBUG_ADVICE}", 1
        case RuntimeError():
            return _runtime_ending(error)
    return None


def _runtime_ending(error: RuntimeError) -> tuple[str, int] | None:
    from forejudge.compiling import compile_error
    from forejudge.device import is_out_of_memory

    if reason := compile_error(error):
        return f"torch.compile failed ({reason}): leave out --compile", 1
    return (_OUT_OF_MEMORY, 1) if is_out_of_memory(error) else None


def _exit_with_error(message: str, status: int) -> None:
    echo(f"error: {message_line(message)}", err=True)
    raise typer.Exit(status)


class StderrHandler(logging.Handler):
    """Handler that shows what the library logs, such as warnings, as lines on stderr."""

    def emit(self, record: logging.LogRecord) -> None:
        """Write one line, in yellow on a terminal."""
        message = message_line(f"{record.levelname.lower()}: {record.getMessage()}")
        typer.secho(message, fg="yellow", err=True)


def _show_version(value: bool) -> None:
    if value:
        echo(f"forejudge {version('forejudge')}")
        raise typer.Exit


def _root(
    context: typer.Context,
    show_version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    """Best-of-N for one-step diffusion transformers: score candidates early, finish only the best."""
    if context.invoked_subcommand is None:
        echo(context.get_help())


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


def _check_none_is_empty(arguments: Sequence[str]) -> None:
    """Raise InvalidRequest for an empty argument: as a path, it would silently be the current folder."""
    for before, argument in zip(["", *arguments], arguments, strict=False):
        name, equals, value = argument.partition("=")
        if argument == "" or (argument.startswith("--") and equals and not value):
            option = name or (before if before.startswith("-") else "an argument")
            raise InvalidRequest(f"{option} is empty: give a value, or leave it out")


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line on `arguments`, by default those of the process. Raises SystemExit when done."""
    arguments = sys.argv[1:] if arguments is None else arguments
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # a terminal in ASCII loses no result
    logger, handler = logging.getLogger("forejudge"), StderrHandler()
    logger.addHandler(handler)
    try:
        with held:
            _app(arguments)(args=arguments, prog_name="forejudge", obj=arguments)
    finally:
        logger.removeHandler(handler)
