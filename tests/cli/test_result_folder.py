from pathlib import Path

import pytest
from tests.cli.command import made_up

from forejudge.cli import result_folder
from forejudge.cli.result_folder import write_result
from forejudge.errors import OutputError


def test_winner_and_record_are_written_first(tmp_path: Path) -> None:
    (tmp_path / "candidates").write_text("a file where the folder should be")
    with pytest.raises(OutputError, match=r"candidates/0000\.png cannot be written"):
        write_result(tmp_path, made_up([0.1, 0.8], finished=[1, 0]), everything=True)
    assert (tmp_path / "best.png").is_file()
    assert (tmp_path / "result.json").is_file()


def test_more_than_ten_thousand_candidates_have_names() -> None:
    assert result_folder._OTHERS.fullmatch("candidates/10000.png")
