from pathlib import Path

import pytest

from forejudge.report.page import Contents
from tests.support.made_up_evaluation import fake_evaluation


@pytest.fixture(scope="session")
def evaluation(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a finished evaluation."""
    return fake_evaluation(tmp_path_factory.mktemp("evaluations") / "made-up")


@pytest.fixture(scope="session")
def contents(evaluation: Path) -> Contents:
    return Contents.read(evaluation)
