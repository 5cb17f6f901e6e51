"""What a folder's results say of each picture: GenEval's lines, and who judged."""

import json
from collections.abc import Iterator
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from forejudge.errors import InvalidRequest
from forejudge.evaluation.evaluators import Judgement
from forejudge.evaluation.geneval import keep_detections
from forejudge.evaluation.metadata import PromptMetadata

RESULTS_FILE = "results.jsonl"

Key = tuple[str, str, str]
"""What a result is of: name (relative to the folder) and SHA-256 of a picture's file, and its metadata as JSON."""


class PictureResult(BaseModel):
    """A line of GenEval's results, then who judged, and the SHA-256 of the picture's file.

    `filename` is relative to the folder; `metadata` and `details`, boxes and confidences by class, are JSON texts.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    filename: str
    tag: str
    prompt: str
    correct: bool
    reason: str
    metadata: str
    details: str
    evaluator: str
    sha256: str

    @classmethod
    def of(cls, key: Key, metadata: PromptMetadata, judgement: Judgement, evaluator: str) -> "PictureResult":
        """The details are the detections that GenEval's rules keep."""
        kept = keep_detections(judgement.detections, metadata)
        details = {name: [[*found.box, found.confidence] for found in each] for name, each in kept.items()}
        filename, sha256, text = key
        return cls(
            filename=filename,
            tag=metadata.tag,
            prompt=metadata.prompt,
            correct=judgement.correct,
            reason=judgement.reason,
            metadata=text,
            details=json.dumps(details),
            evaluator=evaluator,
            sha256=sha256,
        )

    @property
    def key(self) -> Key:
        """What it is of."""
        return self.filename, self.sha256, self.metadata


def read_results(path: Path, evaluator: str) -> Iterator[PictureResult]:
    """Those that are there already; a torn last line is passed over.

    Raises InvalidRequest for a file of another evaluator or of another program.
    """
    lines = path.read_text(encoding="utf-8").split("\n") if path.exists() else []
    for number, line in enumerate(lines, start=1):
        if not line or (number == len(lines) and _is_torn(line)):
            continue
        try:
            result = PictureResult.model_validate_json(line)
        except ValidationError:
            raise InvalidRequest(
                f"{path}, line {number} was not written by this command: rename the file to keep it, or remove it"
            ) from None
        if result.evaluator != evaluator:
            raise InvalidRequest(
                f"{path} holds results of {result.evaluator}, this is {evaluator}: rename the file to keep it, or "
                "judge with the same again"
            )
        yield result


def _is_torn(line: str) -> bool:
    try:
        json.loads(line)
    except ValueError:
        return True
    return False
