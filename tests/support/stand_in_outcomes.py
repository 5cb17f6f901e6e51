"""Known outcomes, for tests of the statistics on them."""

import numpy as np

from forejudge.evaluation.strategies import Outcomes
from forejudge.prompts.geneval import TASKS


def outcomes(cases: int = 60, seeds: int = 2, candidates: int = 4) -> Outcomes:
    """Make outcomes with half of the candidates right: one verifier knows which, one is opposite, one constant."""
    correct = np.random.default_rng(0).random((cases, seeds, candidates)) < 0.5
    truth = correct.astype(float)
    return Outcomes(
        prompts=[f"prompt {case // 2}" for case in range(cases)],
        tasks=[TASKS[case // 2 % len(TASKS)] for case in range(cases)],
        correct_CSN=correct,
        score_CSN={"knows": truth, "contrary": -truth, "silent": np.zeros_like(truth)},
        probability_CSN={"knows": truth, "contrary": 1 - truth},
    )
