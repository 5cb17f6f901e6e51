"""Every command that writes into a folder refuses one that another process holds, before models are loaded."""

from pathlib import Path
from threading import Thread

import pytest

from forejudge.files import output_folder
from tests.support.command import CommandLine, refusal
from tests.support.geneval_layout import metadata_line


@pytest.mark.parametrize(
    "arguments",
    [
        ["generate", "x"],
        ["generate", "--prompts", "prompts.txt"],
        ["label", "--prompts", "prompts.jsonl", "--recipe", "miniature"],
        ["caption", "--prompts", "prompts.txt", "--recipe", "miniature"],
        ["eval"],
        ["study", "layers", "--labels", "labels"],
        ["profile"],
    ],
    ids=lambda arguments: " ".join(arguments[:2]),
)
def test_a_folder_of_another_process_is_refused(forejudge: CommandLine, arguments: list[str]) -> None:
    Path("prompts.txt").write_text("a red circle\n")
    Path("prompts.jsonl").write_text(metadata_line("circle") + "\n")
    said: list[str] = []
    with output_folder(Path("out")):
        thread = Thread(target=lambda: said.append(refusal(forejudge(*arguments, "--out", "out"), 2)))
        thread.start()
        thread.join()
    assert said == ["error: out is being written to by another process: wait for it, or choose another --out\n"]
    assert list(Path("out").iterdir()) == []
