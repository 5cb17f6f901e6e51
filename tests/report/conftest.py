from pathlib import Path

import pytest
from tests.report.made_up_evaluation import made_up_evaluation

from forejudge.report.contents import Contents


@pytest.fixture(scope="session")
def evaluation(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a finished evaluation."""
    return made_up_evaluation(tmp_path_factory.mktemp("evaluations") / "made-up")


@pytest.fixture(scope="session")
def contents(evaluation: Path) -> Contents:
    return Contents.read(evaluation)
