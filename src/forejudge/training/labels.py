"""Labelled candidates: a drawing whose observer says which pictures are right, and how many of them are."""

import json
from collections import Counter
from collections.abc import Sequence
from typing import Any

import pyarrow as pa
from PIL.Image import Image
from pydantic import BaseModel, ConfigDict

from forejudge.evaluation.evaluators import Evaluator, Judgement, ReportedDetection
from forejudge.evaluation.prompts_file import PromptLine
from forejudge.files import write_shared_text
from forejudge.training.row_folder import RowFolder

SUMMARY_FILE = "summary.json"


class LabelObserver:
    """Asks an evaluator. Columns: `correct`, `reason` and `detections`, the latter as JSON text."""

    def __init__(self, evaluator: Evaluator) -> None:
        self.name, self._evaluator = evaluator.name, evaluator

    def __call__(self, lines: Sequence[PromptLine], pictures: Sequence[Image]) -> list[dict[str, Any]]:
        """See `Observer.__call__`."""
        return [_columns(judgement) for judgement in self._evaluator(lines, pictures)]


def _columns(judgement: Judgement) -> dict[str, Any]:
    seen = [ReportedDetection.model_validate(found, from_attributes=True) for found in judgement.detections]
    detections = json.dumps([found.model_dump(exclude_none=True) for found in seen])
    return {"correct": judgement.correct, "reason": judgement.reason, "detections": detections}


class Share(BaseModel):
    """So many rows, and the share in [0, 1] of them that is right."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    rows: int
    correct: float


class LabelSummary(Share):
    """All rows, and those of each task for prompts that name one (the `tag` of their metadata)."""

    tasks: dict[str, Share]


def summarize(folder: RowFolder) -> LabelSummary:
    """Count a folder's labels, and leave the summary in it. Raises CheckpointError for one that is not complete."""
    summary = _summary_of(folder.table())
    write_shared_text(folder.folder / SUMMARY_FILE, summary.model_dump_json(indent=2) + "\n")
    return summary


def _task(metadata: str) -> str | None:
    task = json.loads(metadata).get("tag")
    return task if isinstance(task, str) else None


def _summary_of(table: pa.Table) -> LabelSummary:
    correct = table["correct"].to_pylist()
    tasks = [_task(metadata) for metadata in table["metadata"].to_pylist()]
    rows, right = Counter(tasks), Counter(task for task, is_right in zip(tasks, correct, strict=True) if is_right)
    shares = {task: Share(rows=rows[task], correct=right[task] / rows[task]) for task in rows if task is not None}
    return LabelSummary(rows=len(correct), correct=sum(correct) / len(correct), tasks=shares)
