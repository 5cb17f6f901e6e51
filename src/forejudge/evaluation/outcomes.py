"""What was drawn for a benchmark, as arrays: who is right, and what every verifier said.

Shapes: C cases (a prompt and one of its images), S seeds, N candidates in the order in which they were drawn.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from forejudge.evaluation.best_of_n import BoolArray, FloatArray
from forejudge.evaluation.evaluation_folder import EvaluationFolder, check_finished
from forejudge.evaluation.metadata import PromptMetadata


@dataclass(frozen=True)
class Outcomes:
    """`correct_CSN` says whether each finished picture is right; scores and probabilities go by the verifier's name.

    `prompts` and `tasks` have one entry a case. A verifier without calibration has no probabilities. `also_correct_CSN`
    is what second evaluators say of the same pictures, by their names.
    """

    prompts: Sequence[str]
    tasks: Sequence[str]
    correct_CSN: BoolArray
    score_CSN: Mapping[str, FloatArray]
    probability_CSN: Mapping[str, FloatArray]
    also_correct_CSN: Mapping[str, BoolArray] = field(default_factory=dict)

    @property
    def candidates(self) -> int:
        """How many were drawn of each case and seed."""
        return int(self.correct_CSN.shape[2])


def outcomes_of(folder: EvaluationFolder) -> Outcomes:
    """A finished folder as arrays. Raises CheckpointError for one that is not finished or cannot be read."""
    check_finished(folder)
    settings = folder.settings
    rows = [row for prompt in range(settings.prompts) for row in _by_image(folder.rows(prompt))]
    shape = settings.prompts * settings.images_per_prompt, settings.seeds, settings.candidates
    metadata = [PromptMetadata.from_line(folder.metadata(prompt)) for prompt in range(settings.prompts)]
    cases = [prompt for prompt in metadata for _ in range(settings.images_per_prompt)]

    def said(name: str, field: str) -> FloatArray:
        return np.array([row["verdicts"][name][field] for row in rows], dtype=np.float64).reshape(shape)

    calibrated = [name for name, said in rows[0]["verdicts"].items() if said["probability"] is not None]
    return Outcomes(
        prompts=[case.prompt for case in cases],
        tasks=[case.tag for case in cases],
        correct_CSN=np.array([row["correct"] for row in rows], dtype=np.bool_).reshape(shape),
        score_CSN={name: said(name, "score") for name in settings.verifiers},
        probability_CSN={name: said(name, "probability") for name in calibrated},
        also_correct_CSN={
            name: np.array([row["also_correct"][name] for row in rows], dtype=np.bool_).reshape(shape)
            for name in settings.second_evaluators
        },
    )


def _by_image(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Image by image, in each seed by seed."""
    return sorted(rows, key=lambda row: (row["image_index"], row["seed"], row["index"]))
