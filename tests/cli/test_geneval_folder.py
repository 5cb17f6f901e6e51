import json
from pathlib import Path

import pytest
from tests.cli.command import made_up

from forejudge.cli.geneval_folder import lay_out
from forejudge.errors import InvalidRequest, OutputError
from forejudge.evaluation.prompts_file import PromptLine

LINES = [
    PromptLine("a red circle", '{"prompt": "a red circle"}', "prompts.txt, line 1"),
    PromptLine("a star", '{"prompt": "a star"}', "prompts.txt, line 2"),
]


def test_samples_are_ordered_by_prompt_then_image(tmp_path: Path) -> None:
    found = [sample.picture.relative_to(tmp_path).as_posix() for sample in lay_out(tmp_path, LINES, 2)]
    assert found == [f"{prompt:05}/samples/{image:04}.png" for prompt in (0, 1) for image in (0, 1)]


def test_a_sample_is_complete_once_both_files_are_there(tmp_path: Path) -> None:
    sample = lay_out(tmp_path, LINES, 1)[1]
    sample.write(made_up([0.7], finished=[0]))
    assert sample.is_complete
    assert sample.read_record()["winner"] == 0
    assert (tmp_path / "00001" / "metadata.jsonl").read_text() == '{"prompt": "a star"}\n'
    for missing in (sample.picture, sample.record):
        kept = missing.read_bytes()
        missing.unlink()
        assert not sample.is_complete
        missing.write_bytes(kept)


def test_the_folder_of_another_prompt_is_refused(tmp_path: Path) -> None:
    lay_out(tmp_path, LINES, 1)[0].write(made_up([0.7], finished=[0]))
    lay_out(tmp_path, LINES, 1)
    with pytest.raises(InvalidRequest, match=r"a red circle.*prompts\.txt, line 2 is .*a star"):
        lay_out(tmp_path, LINES[1:], 1)


def test_a_damaged_record_is_named(tmp_path: Path) -> None:
    sample = lay_out(tmp_path, LINES, 1)[0]
    sample.write(made_up([0.7], finished=[0]))
    sample.record.write_text(json.dumps({"winner": 0})[:5])
    with pytest.raises(OutputError, match=r"0000\.json cannot be read"):
        sample.read_record()
