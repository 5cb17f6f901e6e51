"""The world that the fuzz tests damage, made once."""

from pathlib import Path

import pytest

from tests.fuzz.world import MADE_IN, make_world


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One of everything that a command reads."""
    folder = tmp_path_factory.mktemp("fuzz")
    return make_world(folder / MADE_IN).rename(folder / "world")
