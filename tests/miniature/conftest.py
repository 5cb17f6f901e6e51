"""One shrunken build for all tests that look at its parts."""

from pathlib import Path

import pytest

from forejudge.progress import Progress
from research.tests.small_build import build


@pytest.fixture(scope="session")
def progress_reports() -> list[Progress]:
    """What was told of the build."""
    return []


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory, progress_reports: list[Progress]) -> Path:
    """The folder of a finished build."""
    folder = tmp_path_factory.mktemp("built")
    build(folder, report=progress_reports.append).run()
    return folder
