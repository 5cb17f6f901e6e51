"""A made-up recording: probabilities of two cuts, labels and second-step labels of a few candidates."""

from collections.abc import Sequence

import numpy as np

from forejudge.evaluation.policy_costs import BatchCosts, PolicyCosts
from forejudge.evaluation.strategies import Outcomes
from forejudge.expected_improvement import Prior, log_odds
from forejudge.simulation.recording import CandidateFlops, Header, Recording
from tests.support.made_up_evaluation import SETTINGS

PRIOR = Prior(mean=0.0, weight=1.0, min_deviation=1.0)
COSTS = PolicyCosts(
    verifiers={
        "late": BatchCosts(batch_ms={1: 10, 2: 15, 4: 25}, finish_ms=20, second_step_ms=12, prior=PRIOR),
        "early": BatchCosts(batch_ms={1: 6, 2: 9, 4: 15}, finish_ms=24, second_step_ms=12, prior=None),
    },
    encode_ms=5,
)


def recording(
    late: Sequence[Sequence[float]],
    correct: Sequence[Sequence[int]],
    second_step: Sequence[Sequence[float]] | None = None,
    early: Sequence[Sequence[float]] | None = None,
) -> Recording:
    """Return a recording of one seed; each case is another prompt, of two tasks in turn."""
    cases, candidates = np.shape(correct)

    def as_CSN(table: Sequence[Sequence[float]]) -> np.ndarray:
        return np.array(table, np.float64)[:, None]

    probability_CSN = {"late": as_CSN(late), "early": as_CSN(early or late)}
    settings = SETTINGS.model_copy(
        update={
            "verifiers": {"late": "1", "early": "0"},
            "prompts": cases,
            "seeds": 1,
            "candidates": candidates,
            "second_step": second_step is not None,
        }
    )
    outcomes = Outcomes(
        prompts=[f"a photo of {case} stars" for case in range(cases)],
        tasks=[("counting", "colors")[case % 2] for case in range(cases)],
        correct_CSN=as_CSN(correct).astype(np.bool_),
        score_CSN={name: log_odds(table) for name, table in probability_CSN.items()},
        probability_CSN=probability_CSN,
        second_step_correct_CSN=None if second_step is None else as_CSN(second_step),
    )
    flops = {"late": CandidateFlops(candidate=100, scoring=10), "early": CandidateFlops(candidate=40, scoring=10)}
    return Recording(Header(settings=settings, costs=COSTS, flops=flops), outcomes)
