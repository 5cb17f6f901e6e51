from pathlib import Path

import pytest

from forejudge.errors import CheckpointError, InvalidRequest
from forejudge.evaluation.score_folder import ImageResult, read_results
from forejudge.evaluators.base import Evaluation
from forejudge.evaluators.geneval_rules import Box, Detection
from forejudge.prompts.geneval import PromptMetadata
from tests.support.geneval_layout import metadata_line

KEY = ("00000/samples/0000.png", "0" * 64, metadata_line("star"))
BOX: Box = (0.0, 1.0, 8.0, 8.0)
SEEN = tuple(
    Detection(*each) for each in (("star", BOX, 0.5), ("ring", BOX, 0.75), ("star", BOX, 0.9), ("moon", BOX, 0.3))
)
RESULT = ImageResult.of(KEY, PromptMetadata.from_line(KEY[2]), Evaluation(False, "not red", SEEN), "eyes")


def written(folder: Path, text: str) -> Path:
    (folder / "results.jsonl").write_text(text)
    return folder / "results.jsonl"


def test_details_are_what_counts_most_confident_first() -> None:
    assert (
        RESULT.details
        == '{"star": [[0.0, 1.0, 8.0, 8.0, 0.9], [0.0, 1.0, 8.0, 8.0, 0.5]], "ring": [[0.0, 1.0, 8.0, 8.0, 0.75]]}'
    )
    assert (RESULT.tag, RESULT.prompt, RESULT.key) == ("colors", "a photo of a red star", KEY)


def test_results_come_again_without_a_torn_line(tmp_path: Path) -> None:
    assert list(read_results(tmp_path / "results.jsonl", "eyes")) == []
    line = RESULT.model_dump_json()
    assert list(read_results(written(tmp_path, f"{line}\n{line[:50]}"), "eyes")) == [RESULT]


def test_results_of_another_evaluator_are_refused(tmp_path: Path) -> None:
    path = written(tmp_path, f"{RESULT.model_dump_json()}\n")
    with pytest.raises(InvalidRequest, match=r"results\.jsonl holds results of eyes, this is ears: rename the file"):
        list(read_results(path, "ears"))


@pytest.mark.parametrize(
    "text", ['{"filename": "a", "correct": true}', '{"filename": "a"}\n', "[]\n{", "notes\nmore\n"]
)
def test_lines_of_another_program_are_refused(tmp_path: Path, text: str) -> None:
    with pytest.raises(CheckpointError, match=r"results\.jsonl, line 1: .*; remove this line, or rename the file"):
        list(read_results(written(tmp_path, text), "eyes"))
