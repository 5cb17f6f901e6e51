"""The guide to one's own model, word for word: its hub ids lie in a cache, as tiny models of the same classes."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from forejudge.generators import KNOWN_MODELS
from tests.support.hub_cache import add_to_cache
from tests.test_readme import Block, find_blocks

PAGE = (Path(__file__).resolve().parents[1] / "docs" / "use-it-with-your-model.md").read_text(encoding="utf-8")
BLOCKS = find_blocks(PAGE)
SANA = KNOWN_MODELS["sana-sprint-1.6b"]


@pytest.fixture
def environment(tiny_generator: Path, tiny_verifier: Path, tmp_path: Path) -> dict[str, str]:
    """No network, and a hub's cache that holds what the page names."""
    assert SANA.verifier is not None
    for model, folder in ((SANA.pipeline, tiny_generator), (SANA.verifier, tiny_verifier)):
        add_to_cache(tmp_path / "hub", model, folder)
        add_to_cache(tmp_path / "hub", model, folder, commit="a" * 40, ref="REVISION")
    installed = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    places = {"HF_HUB_CACHE": str(tmp_path / "hub"), "XDG_CACHE_HOME": str(tmp_path / "cache"), "PATH": installed}
    return {**os.environ, **places, "HF_HUB_OFFLINE": "1", "CUDA_VISIBLE_DEVICES": ""}


def run(block: Block, folder: Path, environment: dict[str, str]) -> None:
    shell = ["bash", "-euo", "pipefail", "-c"] if block.language == "bash" else [sys.executable, "-c"]
    command = [*shell, block.script]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, f"line {block.line}:\n{done.stderr[-2000:]}"


@pytest.mark.slow
def test_the_guide_can_be_followed(environment: dict[str, str], tmp_path: Path) -> None:
    folder = tmp_path / "here"
    folder.mkdir()
    for block in BLOCKS:
        assert block.reason is None
        run(block, folder, environment)
    assert (folder / "best.png").is_file()
    assert re.findall(r'"commit": "(\w+)"', (folder / "result.json").read_text()) == ["a" * 40] * 2


def test_the_guide_names_models_that_are_known() -> None:
    known = {SANA.name, "sana-sprint-0.6b", SANA.pipeline, str(SANA.verifier)}
    assert {name for name in known if name not in PAGE} == set()
    assert set(re.findall(r"sana-sprint-[\d.]+b", PAGE)) <= KNOWN_MODELS.keys()
