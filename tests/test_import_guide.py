"""Commands of docs/import-a-verifier.md, word for word, on tiny models."""

import shlex
import shutil
from pathlib import Path

import pytest

from tests.support.command import CommandLine
from tests.support.folders import copy_folder
from tests.support.official import OFFICIAL
from tests.test_readme import find_blocks

GUIDE = Path(__file__).resolve().parents[1] / "docs" / "import-a-verifier.md"
BLOCKS = find_blocks(GUIDE.read_text(encoding="utf-8"))
STANDS_FOR = {
    "aimagelab/vhs-hidden-verifier": "vhs-tiny-96",
    "aimagelab/vhs-mllm-clip-verifier": "vhs-tiny-clip",
    "openai/clip-tiny-vision": "openai/clip-tiny-vision",  # that the config names
    "Efficient-Large-Model/Sana_Sprint_1.6B_1024px_diffusers": "sana-sprint-tiny",
}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Change to a folder in which the page's hub ids are folders."""
    for name, tiny in STANDS_FOR.items():
        copy_folder(OFFICIAL / tiny, tmp_path / name)
    for name in ("mean", "variance"):
        shutil.copy(OFFICIAL / "norm" / "96" / f"block_7_{name}_bf16.pt", tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_published_verifier_is_imported_used_and_exported(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    forejudge = CommandLine(capsys)
    for block in (block for block in BLOCKS if block.reason is None):
        for line in block.script.splitlines():
            program, *arguments = shlex.split(line)
            assert program == "forejudge"
            outcome = forejudge(*arguments)
            assert outcome.status == 0, f"line {block.line}: {outcome}"
    assert (folder / "forejudge-out" / "best.png").is_file()
    assert (folder / "clip" / "best.png").is_file()
    assert (folder / "published" / "block_7_mean_bf16.pt").is_file()


def test_the_guide_names_both_published_verifiers_and_every_command() -> None:
    page = "\n".join(block.code for block in BLOCKS)
    for named in (*list(STANDS_FOR)[:2], "verifier import", "verifier export", "--statistics", "official_scores"):
        assert named in page
