import logging
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from forejudge import __version__
from forejudge.__main__ import main as start
from forejudge.cli import generate
from forejudge.cli.app import COMMANDS
from forejudge.errors import OutputError, Terminated
from tests.support.command import CommandLine, refusal

HEAVY = ("torch", "diffusers", "transformers", "PIL")


@pytest.mark.parametrize(
    "arguments", [["--help"], ["generate", "--help"], ["--version"], ["generate", "x", "--n", "0"]]
)
def test_what_needs_no_model_loads_no_model_library(arguments: list[str]) -> None:
    probe = (
        "import sys\nfrom forejudge.cli.app import main\n"
        f"try: main({arguments})\n"
        f"except SystemExit: assert not [name for name in {HEAVY} if name in sys.modules]"
    )
    result = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, timeout=600)
    assert result.returncode == 0, result.stderr


def test_installed_command_ends_with_one_line_and_a_status() -> None:
    command = Path(sys.executable).with_name("forejudge")
    result = subprocess.run([command, "generate", "x", "--n", "0"], capture_output=True, text=True, timeout=600)
    assert (result.returncode, result.stdout) == (2, "")
    assert result.stderr == "error: n = 0: Input should be greater than or equal to 1\n"


def test_version(forejudge: CommandLine) -> None:
    assert forejudge("--version").out == f"forejudge {__version__}\n"


def test_help_names_the_commands(forejudge: CommandLine) -> None:
    for outcome in (forejudge(), forejudge("--help")):
        assert outcome.status == 0
        assert "generate" in outcome.out
        assert "models" in outcome.out


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_of_the_table_has_help(forejudge: CommandLine, command: str) -> None:
    outcome = forejudge(command, "--help")
    assert outcome.status == 0
    assert f"Usage: forejudge {command}" in outcome.out


def test_misspelt_option_is_usage(forejudge: CommandLine) -> None:
    outcome = forejudge("generate", "x", "--seeed", "1")
    assert outcome.status == 2
    assert "--seeed" in outcome.err


@pytest.fixture
def fail(forejudge: CommandLine, monkeypatch: pytest.MonkeyPatch) -> Callable[[BaseException, int], str]:
    """Let `generate` raise an error, and return the line it ends with."""

    def failing(error: BaseException, status: int) -> str:
        def stop(*options: object) -> None:
            raise error

        monkeypatch.setattr(generate, "generate_one", stop)
        return refusal(forejudge("generate", "x"), status)

    return failing


Fail = Callable[[BaseException, int], str]


def test_ctrl_c_and_sigterm_end_with_one_line(fail: Fail) -> None:
    assert fail(KeyboardInterrupt(), 130) == "error: interrupted: files already written stay\n"
    assert fail(Terminated(), 143) == "error: terminated: files already written stay\n"
    continued = KeyboardInterrupt("the same command continues")
    continued.__context__ = Terminated()
    assert fail(continued, 143) == "error: terminated: the same command continues\n"


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (PermissionError(13, "Permission denied", "a.json"), "error: a.json: Permission denied; check the path"),
        (OSError(28, "No space left on device"), "error: No space left on device; check the path"),
        (EOFError("ran out"), "error: a file or text that was given cannot be read (EOFError: ran out)"),
        (UnicodeEncodeError("utf-8", "\ud83d", 0, 1, "surrogates"), "error: a file or text that was given"),
        (RecursionError("too deep"), "error: a file or text that was given"),
        (MemoryError(), "error: out of memory"),
        (ImportError("lib.so: failed to map segment from shared object"), "error: too little memory to load the lib"),
        (SystemError("error return without exception set"), "error: too little memory to load the libraries"),
        (OutputError("a\x1b[31m\nb\u202e" + "x" * 5000), "error: a\\u001b[31m b\\u202exxx"),
    ],
)
def test_what_nobody_caught_ends_with_one_printable_line(fail: Fail, error: BaseException, said: str) -> None:
    line = fail(error, 1)
    assert line.startswith(said)
    assert len(line) < 400


def test_a_fault_of_the_program_is_not_hidden(fail: Fail, monkeypatch: pytest.MonkeyPatch) -> None:
    for fault in (KeyError("name"), ImportError("no module named x")):
        with pytest.raises(type(fault)):
            fail(fault, 1)
    monkeypatch.setenv("FOREJUDGE_DEBUG", "1")
    with pytest.raises(OutputError):
        fail(OutputError("no room"), 1)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["generate", "x", "--out", ""], "error: --out is empty: give a value, or leave it out\n"),
        (["eval", "--figures="], "error: --figures is empty: give a value, or leave it out\n"),
        (["report", ""], "error: an argument is empty: give a value, or leave it out\n"),
    ],
)
def test_an_empty_argument_is_refused(forejudge: CommandLine, arguments: list[str], said: str) -> None:
    assert refusal(forejudge(*arguments), 2) == said


def test_memory_that_runs_out_ends_with_one_line(forejudge: CommandLine, monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    def run_out(*options: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20 GiB")

    monkeypatch.setattr(generate, "generate_one", run_out)
    assert refusal(forejudge("generate", "x"), 1).startswith("error: out of memory: choose a smaller --batch-size")


def test_a_block_that_cannot_be_compiled_ends_with_one_line(
    forejudge: CommandLine, monkeypatch: pytest.MonkeyPatch
) -> None:
    from torch._dynamo.exc import Unsupported

    def fail(*options: object) -> None:
        raise Unsupported("a hook that cannot be traced\nand a long report")

    monkeypatch.setattr(generate, "generate_one", fail)
    said = refusal(forejudge("generate", "x", "--compile"), 1)
    assert said == "error: torch.compile failed (a hook that cannot be traced): leave out --compile\n"


def test_the_package_runs_as_a_module() -> None:
    result = subprocess.run(
        [sys.executable, "-m", "forejudge", "--version"], capture_output=True, text=True, timeout=600
    )
    assert result.stdout == f"forejudge {__version__}\n"


def test_warnings_of_the_library_are_lines_on_stderr(forejudge: CommandLine, monkeypatch: pytest.MonkeyPatch) -> None:
    def warn(*options: object) -> None:
        logging.getLogger("forejudge").warning("its verdicts may not hold [bold]")

    monkeypatch.setattr(generate, "generate_one", warn)
    for _ in range(2):
        assert forejudge("generate", "x").err == "warning: its verdicts may not hold [bold]\n"


@pytest.mark.parametrize(
    ("error", "status", "word"), [(KeyboardInterrupt, 130, "interrupted"), (Terminated, 143, "terminated")]
)
def test_a_stop_while_modules_are_imported_ends_with_one_line(
    error: type[BaseException],
    status: int,
    word: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def stop() -> None:
        raise error

    monkeypatch.setattr("signal.signal", lambda number, handler: None)
    monkeypatch.setattr("forejudge.cli.app.main", stop)
    with pytest.raises(SystemExit) as exit_info:
        start()
    assert exit_info.value.code == status
    assert capsys.readouterr().err == f"error: {word} before anything was written\n"
