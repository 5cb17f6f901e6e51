"""The world that the fuzz tests damage, made once."""

from pathlib import Path

import pytest

from tests.fuzz.world import make_world


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One of everything that a command reads."""
    return make_world(tmp_path_factory.mktemp("fuzz") / "world")
