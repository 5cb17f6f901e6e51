"""Fixtures of the research tests: those of the product's tests, and one tiny build for all tests of its parts."""

from pathlib import Path

import pytest

from forejudge.progress import Progress
from research.tests.small_build import build
from tests.conftest import parity, repository, tiny_generator

__all__ = ["parity", "repository", "tiny_generator"]


@pytest.fixture(scope="session")
def progress_reports() -> list[Progress]:
    """Progress reports of the build."""
    return []


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory, progress_reports: list[Progress]) -> Path:
    """Folder of a finished build."""
    folder = tmp_path_factory.mktemp("built")
    build(folder, report=progress_reports.append).run()
    return folder
