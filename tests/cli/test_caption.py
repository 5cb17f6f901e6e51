"""`forejudge caption`: what pictures show, kept beside what they were drawn from."""

from pathlib import Path

import pytest
from tests.cli.command import CommandLine, refusal

from forejudge.training.row_folder import RowFolder

LINES = ["a photo of a red circle", "two stars, somewhere"]


@pytest.fixture
def caption(forejudge: CommandLine, tiny_generator: Path) -> CommandLine:
    """`forejudge caption` with the tiny generator, in a folder with captions.txt."""
    Path("captions.txt").write_text("\n".join(LINES))
    arguments = ("--prompts", "captions.txt", "--captioner", "miniature", "--out", "out")
    return CommandLine(forejudge.capture, ("--generator", str(tiny_generator), *arguments))


def test_pictures_of_any_text_file_are_described(caption: CommandLine) -> None:
    outcome = caption("caption", "--candidates", "2", "--record", "hidden:1")
    assert outcome.status == 0, outcome
    table = RowFolder(Path("out")).table()
    assert table["prompt"].to_pylist() == [line for line in LINES for _ in range(2)]
    assert all(said.endswith(".") and said not in LINES for said in table["caption"].to_pylist())
    assert set(table["judged_by"].to_pylist()) == {"miniature"}
    assert outcome.out == "4 captioned candidates are in out\n"


def test_every_block_is_recorded_where_all_are_asked_for(caption: CommandLine) -> None:
    assert caption("caption", "--record", "all").status == 0
    assert RowFolder(Path("out")).settings.recorded == ("hidden:1", "hidden:2", "hidden:3", "hidden:4")


def test_an_unknown_captioner_is_refused(caption: CommandLine) -> None:
    assert "miniature" in refusal(caption("caption", "--captioner", "nobody"), 2)
