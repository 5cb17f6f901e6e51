"""Labelled candidates as questions to one verifier, and how good its answers to them are."""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from forejudge.errors import InvalidRequest
from forejudge.evaluation.verifier_metrics import VerifierMetrics, verifier_metrics
from forejudge.generators.base import Generator
from forejudge.training.batches import QuestionBatches, Rows
from forejudge.training.data import DrawnRows
from forejudge.training.stages import Verification, scores
from forejudge.verifiers.calibration import Calibration, fit_calibration
from forejudge.verifiers.question import Question
from forejudge.verifiers.reading import Reading


@dataclass(frozen=True)
class LabelledRows:
    """Labelled candidates as questions to one verifier."""

    rows: DrawnRows
    batches: QuestionBatches

    @classmethod
    def of(cls, rows: DrawnRows, generator: Generator, reading: Reading, question: Question) -> "LabelledRows":
        """Raises InvalidRequest where all are right or all are wrong."""
        right = int(rows.correct.sum())
        if right in (0, len(rows)):
            raise InvalidRequest(
                f"{rows.folder.folder}: {right} of {len(rows)} candidates are right, but a verifier needs right and "
                "wrong ones: label more prompts, or harder ones"
            )
        states = rows.states(generator, reading)
        return cls(rows, QuestionBatches(states, question, rows.prompts, rows.correct.tolist()))

    def check_pairs(self) -> None:
        """Raises InvalidRequest where no group has both right and wrong candidates, so that none can be told apart."""
        groups = self.rows.groups
        if len(set(zip(groups, self.rows.correct.tolist(), strict=True))) == len(set(groups)):
            raise InvalidRequest(
                f"{self.rows.folder.folder}: no prompt has both right and wrong candidates, but the best checkpoint is "
                "the one that tells them apart: label more candidates of each prompt"
            )

    def first(self, count: int | None = None) -> Rows:
        """So many of the first ones, by default all."""
        return Rows(range(len(self.rows))[:count], self.batches)

    def metrics(self, answered: NDArray[np.float32]) -> tuple[VerifierMetrics, Calibration]:
        """How good these answers are, with the calibration that fits them best."""
        score = scores(torch.from_numpy(answered)).double().numpy()
        if not np.isfinite(score).all():
            raise InvalidRequest("training diverged, answers are no numbers: lower learning_rate or change precision")
        calibration = fit_calibration(score.tolist(), self.rows.correct.tolist())
        probability = np.array([calibration.probability(value) for value in score])
        return verifier_metrics(self.rows.groups, self.rows.correct, score, probability), calibration

    @torch.no_grad()
    def answered(self, stage: Verification, device: torch.device, size: int = 128) -> NDArray[np.float32]:
        """What a trained stage says of every row."""
        stage.eval()
        said = []
        for rows in torch.arange(len(self.rows)).split(size):
            batch = {name: part.to(device) for name, part in self.batches(rows.tolist()).items() if name != "labels"}
            said.append(stage(**batch)["answered"].float().cpu())
        array: NDArray[np.float32] = torch.cat(said).numpy()
        return array
