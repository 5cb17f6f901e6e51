"""Observers of generated candidates: each adds columns to the candidates' rows.

An observer sees every batch while the views of its stages are there, then the finished images of a whole block.
"""

import json
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa
from PIL.Image import Image
from pydantic import BaseModel, ConfigDict

from forejudge.candidates.store import CandidateStore
from forejudge.evaluators.base import Captioner, Evaluation, Evaluator, ReportedDetection
from forejudge.files import write_text
from forejudge.prompts.prompt_file import PromptLine
from forejudge.types import Candidates, Stage
from forejudge.verifiers.base import Verifier

SUMMARY_FILE = "summary.json"

Columns = dict[str, Any]


class Observer(ABC):
    """Adds labels, captions or scores to the rows of candidates. `name` is recorded as `observer_name`.

    `stages` are those whose views `score` needs; images are always generated.
    """

    name: str
    stages: frozenset[Stage] = frozenset()

    def score(self, prompt: str, candidates: Candidates) -> list[Columns]:
        """Return the columns that follow from a batch's views, one dictionary per candidate."""
        return [{} for _ in range(len(candidates))]

    @abstractmethod
    def __call__(self, lines: Sequence[PromptLine], images: Sequence[Image]) -> list[Columns]:
        """Return the columns that follow from the images of a block, each generated from the line at its index."""


class LabelObserver(Observer):
    """Labels images by an evaluator. Columns: `correct`, `reason`, and `detections` as JSON text."""

    def __init__(self, evaluator: Evaluator) -> None:
        self.name, self._evaluator = evaluator.name, evaluator

    def __call__(self, lines: Sequence[PromptLine], images: Sequence[Image]) -> list[Columns]:
        """See `Observer.__call__`."""
        return [_label(evaluation) for evaluation in self._evaluator(lines, images)]


def _label(evaluation: Evaluation) -> Columns:
    seen = [ReportedDetection.model_validate(found, from_attributes=True) for found in evaluation.detections]
    detections = json.dumps([found.model_dump(exclude_none=True) for found in seen])
    return {"correct": evaluation.correct, "reason": evaluation.reason, "detections": detections}


class CaptionObserver(Observer):
    """Describes images by a captioner, which sees no prompt. Column: `caption`.

    The prompt stays in its own column, so that alignment can learn from either.
    """

    def __init__(self, captioner: Captioner) -> None:
        self.name, self._captioner = captioner.name, captioner

    def __call__(self, lines: Sequence[PromptLine], images: Sequence[Image]) -> list[Columns]:
        """See `Observer.__call__`."""
        return [{"caption": caption} for caption in self._captioner(images)]


class EvaluationObserver(Observer):
    """Scores candidates by several verifiers and evaluates their images by several evaluators.

    Columns: `verdicts` (score and probability by verifier), `correct` and `reason` of the benchmark's evaluator, and
    `second_correct` by second evaluator.
    """

    def __init__(
        self, verifiers: Mapping[str, Verifier], evaluator: Evaluator, second_evaluators: Mapping[str, Evaluator]
    ) -> None:
        self.name, self._evaluator = evaluator.name, evaluator
        self._verifiers, self._second_evaluators = verifiers, second_evaluators
        self.stages = frozenset(stage for verifier in verifiers.values() for stage in verifier.reads)

    def score(self, prompt: str, candidates: Candidates) -> list[Columns]:
        """See `Observer.score`."""
        by_verifier = {name: verifier.score(prompt, candidates) for name, verifier in self._verifiers.items()}
        return [
            {
                "verdicts": {
                    name: {"score": verdicts[row].score, "probability": verdicts[row].probability}
                    for name, verdicts in by_verifier.items()
                }
            }
            for row in range(len(candidates))
        ]

    def __call__(self, lines: Sequence[PromptLine], images: Sequence[Image]) -> list[Columns]:
        """See `Observer.__call__`."""
        second = {name: evaluator(lines, images) for name, evaluator in self._second_evaluators.items()}
        return [
            {
                "correct": evaluation.correct,
                "reason": evaluation.reason,
                "second_correct": {name: evaluations[row].correct for name, evaluations in second.items()},
            }
            for row, evaluation in enumerate(self._evaluator(lines, images))
        ]


class LabelShare(BaseModel):
    """Row count of a set of labels, and the share of correct ones in [0, 1]."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    rows: int
    correct: float


class LabelSummary(LabelShare):
    """Label share of all rows, and of each task for prompts that name one (the `tag` of their metadata)."""

    tasks: dict[str, LabelShare]


def summarize(store: CandidateStore) -> LabelSummary:
    """Count a store's labels and write the summary into it. Raises CheckpointError while blocks are missing."""
    summary = _summary_of(store.table())
    write_text(store.path / SUMMARY_FILE, summary.model_dump_json(indent=2) + "\n")
    return summary


def _summary_of(table: pa.Table) -> LabelSummary:
    correct = table["correct"].to_pylist()
    tasks = [_task(metadata) for metadata in table["metadata"].to_pylist()]
    rows, right = Counter(tasks), Counter(task for task, is_right in zip(tasks, correct, strict=True) if is_right)
    shares = {task: LabelShare(rows=rows[task], correct=right[task] / rows[task]) for task in rows if task is not None}
    return LabelSummary(rows=len(correct), correct=sum(correct) / len(correct), tasks=shares)


def _task(metadata: str) -> str | None:
    task = json.loads(metadata).get("tag")
    return task if isinstance(task, str) else None
