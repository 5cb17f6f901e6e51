"""The training guide's commands run word for word, in the order of the page, in one empty folder."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.test_readme import find_blocks

GUIDE = Path(__file__).resolve().parents[1] / "docs" / "train-a-verifier.md"
BLOCKS = find_blocks(GUIDE.read_text(encoding="utf-8"))


def run_page(folder: Path) -> None:
    """Run every block without a no-test mark."""
    installed = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    for block in BLOCKS:
        if block.reason is None:
            command = ["bash", "-euo", "pipefail", "-c", block.script]
            environment = {**os.environ, "PATH": installed}
            result = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=600)
            assert result.returncode == 0, f"line {block.line}:\n{result.stderr[-2000:]}"


@pytest.mark.slow
def test_the_guide_makes_a_verifier_that_is_used(tmp_path: Path) -> None:
    run_page(tmp_path)
    assert (tmp_path / "verifier" / "README.md").is_file()
    assert (tmp_path / "forejudge-out" / "best.png").is_file()


def test_the_guide_shows_every_command_of_training() -> None:
    page = "\n".join(block.code for block in BLOCKS)
    for command in ("prompts", "label", "caption", "train align", "train verify", "verifier show", "generate", "study"):
        assert f"forejudge {command}" in page
