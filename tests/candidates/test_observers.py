"""Labels as rows, and their summary."""

import json
from collections.abc import Sequence
from pathlib import Path

import pytest
from PIL import Image

from forejudge.candidates.observers import LabelObserver, LabelSummary, summarize
from forejudge.candidates.store import CandidateStore
from forejudge.errors import CheckpointError
from forejudge.evaluators.base import Evaluation
from forejudge.evaluators.geneval_rules import Detection
from forejudge.progress import Shard, ignore_progress
from forejudge.prompts.prompt_file import PromptLine
from tests.support.stand_in import EvenIsRight, candidate_collector, prompt_lines


class SeesAStar(EvenIsRight):
    def __call__(self, lines: Sequence[PromptLine], images: Sequence[Image.Image]) -> list[Evaluation]:
        star = Detection("star", (0.0, 1.0, 2.0, 3.5), 0.75, "red")
        disc = Detection("disc", (0.0, 0.0, 1.0, 1.0), 0.5)
        return [Evaluation(True, "", (star, disc)) for _ in images]


def test_what_was_seen_is_kept_as_json() -> None:
    (columns,) = LabelObserver(SeesAStar())(prompt_lines("a star"), [Image.new("RGB", (4, 4))])
    assert json.loads(columns["detections"]) == [
        {"class": "star", "box": [0.0, 1.0, 2.0, 3.5], "confidence": 0.75, "color": "red"},
        {"class": "disc", "box": [0.0, 0.0, 1.0, 1.0], "confidence": 0.5},
    ]


def test_the_summary_counts_tasks_and_stays_in_the_folder(tmp_path: Path) -> None:
    colors = PromptLine("a red star", '{"tag": "colors", "prompt": "a red star"}', "line 3")
    plain = PromptLine("a star", '{"prompt": "a star"}', "line 4")
    folder = CandidateStore(tmp_path)
    candidate_collector([*prompt_lines("a star", "a disc"), colors, plain], 10, ()).run(
        folder, Shard(), ignore_progress
    )
    summary = summarize(folder)
    rows = folder.table().to_pylist()
    assert summary.rows == 40
    assert summary.correct == pytest.approx(sum(row["correct"] for row in rows) / 40)
    assert {task: share.rows for task, share in summary.tasks.items()} == {"counting": 20, "colors": 10}
    assert summary.tasks["colors"].correct == sum(row["correct"] for row in rows[20:30]) / 10
    assert LabelSummary.model_validate_json((tmp_path / "summary.json").read_text()) == summary


def test_an_unfinished_folder_has_no_summary(tmp_path: Path) -> None:
    folder = CandidateStore(tmp_path)
    candidate_collector().run(folder, Shard(1, 2), ignore_progress)
    with pytest.raises(CheckpointError, match="1 of its 3 row blocks are missing"):
        summarize(folder)
    assert not (tmp_path / "summary.json").exists()
