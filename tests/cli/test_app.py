import logging
import subprocess
import sys
from pathlib import Path

import pytest

from forejudge import __version__
from forejudge.cli import generate
from forejudge.cli.app import COMMANDS
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


def test_ctrl_c_ends_with_one_line(forejudge: CommandLine, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*options: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(generate, "generate_one", interrupt)
    assert refusal(forejudge("generate", "x"), 130) == "error: interrupted\n"


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
