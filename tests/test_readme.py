"""The README's examples run as they stand, in the order of the page, in one empty folder.

`make` lines are not run (they would install anew); their targets are looked up in the Makefile.
A block under `<!-- no-test: reason -->` is not run either.
"""

import os
import re
import shlex
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[1]
README = REPOSITORY / "README.md"
BLOCK = re.compile(
    r"^(?:<!-- no-test: (?P<reason>[^\n]+?) -->\s*\n)?"
    r"^```(?P<language>bash|python)\n(?P<code>.*?)^```$",
    flags=re.MULTILINE | re.DOTALL,
)
SECONDS_ALLOWED = 600  # for one block


@dataclass(frozen=True)
class Block:
    """One fenced example: the line of the page it starts on, and why it is not run, if so."""

    language: str
    code: str
    line: int
    reason: str | None = None

    @property
    def make_lines(self) -> list[str]:
        return [line for line in self.code.splitlines() if is_make(line)]

    @property
    def script(self) -> str:
        return "\n".join(line for line in self.code.splitlines() if not is_make(line))


def is_make(line: str) -> bool:
    """Tell whether a line of shell calls make."""
    return line.split()[:1] == ["make"]


def find_blocks(page: str) -> list[Block]:
    """The page's bash and python blocks, in its order."""
    return [
        Block(
            match["language"],
            match["code"],
            line=page.count("\n", 0, match.start("language")) + 1,
            reason=match["reason"],
        )
        for match in BLOCK.finditer(page)
    ]


def make_targets(line: str) -> list[str]:
    """The targets that a line of shell asks of make; settings and options left out."""
    words = shlex.split(line, comments=True)[1:]
    return [word for word in words if "=" not in word and not word.startswith("-")]


BLOCKS = find_blocks(README.read_text(encoding="utf-8"))
RUNNABLE = [block for block in BLOCKS if block.script.strip()]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder in which the examples run: a later one may read files that an earlier one wrote."""
    return tmp_path_factory.mktemp("readme")


@pytest.mark.parametrize("block", RUNNABLE, ids=lambda block: f"line-{block.line}")
def test_example_runs(block: Block, folder: Path) -> None:
    if block.reason is not None:
        pytest.skip(block.reason)
    shell = ["bash", "-euo", "pipefail", "-c"] if block.language == "bash" else [sys.executable, "-c"]
    installed = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    result = subprocess.run(
        [*shell, block.script],
        cwd=folder,
        env={**os.environ, "PATH": installed},
        capture_output=True,
        text=True,
        timeout=SECONDS_ALLOWED,
    )
    assert result.returncode == 0, f"README.md, line {block.line}:\n{result.stderr[-2000:]}"


def test_readme_names_only_targets_of_the_makefile() -> None:
    makefile = (REPOSITORY / "Makefile").read_text(encoding="utf-8")
    known = set(re.findall(r"^([a-z][\w-]*):(?!=)", makefile, flags=re.MULTILINE))
    named = {target for block in BLOCKS for line in block.make_lines for target in make_targets(line)}
    assert {"demo", "test"} <= named <= known


def test_readme_shows_the_library_and_the_command_line() -> None:
    tested = "\n".join(block.script for block in RUNNABLE if block.reason is None)
    assert "from forejudge import BestOfN" in tested
    assert "forejudge generate" in tested


def test_blocks_are_read_off_a_page() -> None:
    page = (
        "# Title\n```bash\nmake demo  # first\nforejudge models\n```\ntext\n"
        "<!-- no-test: needs a GPU -->\n```python\nprint(1)\n```\n```text\nmake nothing\n```\n"
    )
    shell, library = find_blocks(page)
    assert (shell.line, shell.script, shell.reason) == (2, "forejudge models", None)
    assert (library.line, library.script, library.reason) == (8, "print(1)", "needs a GPU")
    assert shell.make_lines == ["make demo  # first"]


def test_targets_are_read_off_a_make_line() -> None:
    assert make_targets("make -j2 PYTHON=python3.12 check test  # both") == ["check", "test"]
