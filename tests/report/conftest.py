from dataclasses import replace
from pathlib import Path

import pytest

from forejudge.evaluation.policy_costs import BatchCosts, PolicyCosts
from forejudge.report.page import Contents
from forejudge.simulation.equal_mean_cost import add_equal_mean_time
from forejudge.simulation.families import RuleFamily
from tests.support.made_up_evaluation import fake_evaluation

POLICY_COSTS = PolicyCosts(
    verifiers={
        "hidden": BatchCosts(batch_ms={1: 10, 2: 20, 4: 40}, finish_ms=60, second_step_ms=None, prior=None),
        "clip": BatchCosts(batch_ms={1: 35, 2: 60, 4: 110}, finish_ms=0, second_step_ms=None, prior=None),
    },
    encode_ms=30,
)


@pytest.fixture(scope="session")
def evaluation(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a finished evaluation."""
    return fake_evaluation(tmp_path_factory.mktemp("evaluations") / "made-up")


@pytest.fixture(scope="session")
def contents(evaluation: Path) -> Contents:
    return Contents.read(evaluation)


@pytest.fixture(scope="session")
def searched(contents: Contents) -> Contents:
    """With searches that end by their verdicts, one of them set by the budget."""
    POLICY_COSTS.write(contents.folder.path)
    families = [RuleFamily.parse(text) for text in ("until,batch_size=1", "until=0.7,batch_size=1")]
    return replace(contents, report=add_equal_mean_time(contents.report, contents.folder.path, families))
