"""Examples of the README and the guides run as they stand, each page in its order and in one empty folder.

`make` lines are not run, since they install anew; their targets are looked up in the Makefile. A block under
`<!-- no-test: reason -->` is not run either. Hub ids of the guides are tiny models of the same classes.
"""

import importlib.util
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

from forejudge.generators import KNOWN_MODELS
from forejudge.policies import POLICIES
from tests.support.command import CommandLine
from tests.support.folders import copy_folder
from tests.support.hub_cache import add_to_cache
from tests.support.official import OFFICIAL

REPOSITORY = Path(__file__).resolve().parents[1]
BLOCK = re.compile(
    r"^(?:<!-- no-test: (?P<reason>[^\n]+?) -->\s*\n)?"
    r"^```(?P<language>bash|python)\n(?P<code>.*?)^```$",
    flags=re.MULTILINE | re.DOTALL,
)
TIMEOUT_SECONDS = 600  # for one block
SANA = KNOWN_MODELS["sana-sprint-1.6b"]
PUBLISHED = {
    "aimagelab/vhs-hidden-verifier": "vhs-tiny-96",
    "aimagelab/vhs-mllm-clip-verifier": "vhs-tiny-clip",
    "openai/clip-tiny-vision": "openai/clip-tiny-vision",  # that the config names
    "Efficient-Large-Model/Sana_Sprint_1.6B_1024px_diffusers": "sana-sprint-tiny",
}


@dataclass(frozen=True)
class Block:
    """One fenced example: the line of the page it starts on, and why it is not run, if so."""

    language: str
    code: str
    line: int
    reason: str | None = None

    @property
    def make_lines(self) -> list[str]:
        return [line for line in self.code.splitlines() if is_make(line)]

    @property
    def script(self) -> str:
        """The commands without make; a busy machine keeps any budget of a search, since it is ample here."""
        lines = "\n".join(line for line in self.code.splitlines() if not is_make(line))
        return re.sub(r"(forejudge generate .*--budget-ms) \d+", r"\1 600000 --max-n 4", lines)

    def run(self, folder: Path, environment: Mapping[str, str]) -> None:
        """Run the block with the installed commands; fail with its last lines of stderr."""
        shell = ["bash", "-euo", "pipefail", "-c"] if self.language == "bash" else [sys.executable, "-c"]
        installed = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        done = subprocess.run(
            [*shell, self.script],
            cwd=folder,
            env={**os.environ, **environment, "PATH": installed},
            capture_output=True,
            text=True,
            timeout=TIMEOUT_SECONDS,
        )
        assert done.returncode == 0, f"line {self.line}:\n{done.stderr[-2000:]}"

    def run_here(self, capture: pytest.CaptureFixture[str]) -> None:
        """Run the block in this process and folder, which spares each command its imports."""
        if self.language == "python":
            exec(compile(self.script, f"line {self.line}", "exec"), {"__name__": "__main__"})
            return
        for line in self.script.splitlines():
            program, *arguments = shlex.split(line, comments=True)
            assert program == "forejudge"
            outcome = CommandLine(capture)(*arguments)
            assert outcome.status == 0, f"line {self.line}: {outcome}"


def is_make(line: str) -> bool:
    """Return whether a line of shell calls make."""
    return line.split()[:1] == ["make"]


def find_blocks(page: str) -> list[Block]:
    """Return the page's bash and python blocks, in its order."""
    return [
        Block(match["language"], match["code"], page.count("\n", 0, match.start("language")) + 1, match["reason"])
        for match in BLOCK.finditer(page)
    ]


def make_targets(line: str) -> list[str]:
    """Return the targets that a line of shell asks of make, without settings and options."""
    words = shlex.split(line, comments=True)[1:]
    return [word for word in words if "=" not in word and not word.startswith("-")]


def page(name: str) -> str:
    """Return the text of a page, such as docs/profile.md."""
    return (REPOSITORY / name).read_text(encoding="utf-8")


README, TRAINING, OWN_MODEL, IMPORT, SEARCH = (
    find_blocks(page(name))
    for name in (
        "README.md",
        "docs/train-a-verifier.md",
        "docs/use-it-with-your-model.md",
        "docs/import-a-verifier.md",
        "docs/search.md",
    )
)
RUNNABLE = [block for block in README if block.script.strip() and block.reason is None]


@pytest.mark.parametrize("block", RUNNABLE, ids=lambda block: f"line-{block.line}")
def test_readme_example_runs(
    block: Block, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    block.run_here(capsys)


@pytest.mark.slow
def test_readme_examples_run_as_typed(tmp_path: Path) -> None:
    for block in RUNNABLE:
        block.run(tmp_path, {})


def test_readme_names_only_targets_of_the_makefile() -> None:
    known = set(re.findall(r"^([a-z][\w-]*):(?!=)", page("Makefile"), flags=re.MULTILINE))
    named = {target for block in README for line in block.make_lines for target in make_targets(line)}
    assert {"demo", "test"} <= named <= known


def test_readme_shows_the_library_and_the_command_line() -> None:
    tested = "\n".join(block.script for block in RUNNABLE)
    assert "from forejudge import BestOfN" in tested
    assert "forejudge generate" in tested


@pytest.mark.slow
def test_the_training_guide_makes_a_verifier_that_is_used(tmp_path: Path) -> None:
    for block in (block for block in TRAINING if block.reason is None):
        block.run(tmp_path, {})
    assert (tmp_path / "verifier" / "README.md").is_file()
    assert (tmp_path / "forejudge-out" / "best.png").is_file()


def test_the_training_guide_shows_every_command_of_training() -> None:
    code = "\n".join(block.code for block in TRAINING)
    for command in ("prompts", "label", "caption", "train align", "train verify", "verifier show", "generate", "study"):
        assert f"forejudge {command}" in code


@pytest.fixture
def hub(tiny_generator: Path, tiny_verifier: Path, tmp_path: Path) -> dict[str, str]:
    """Environment without a network, whose hub cache holds what the page names."""
    assert SANA.verifier is not None
    for model, folder in ((SANA.pipeline, tiny_generator), (SANA.verifier, tiny_verifier)):
        add_to_cache(tmp_path / "hub", model, folder)
        add_to_cache(tmp_path / "hub", model, folder, commit="a" * 40, ref="REVISION")
    caches = {"HF_HUB_CACHE": str(tmp_path / "hub"), "XDG_CACHE_HOME": str(tmp_path / "cache")}
    return {**caches, "HF_HUB_OFFLINE": "1", "CUDA_VISIBLE_DEVICES": ""}


@pytest.mark.slow
def test_the_guide_to_your_own_model_can_be_followed(hub: dict[str, str], tmp_path: Path) -> None:
    folder = tmp_path / "here"
    folder.mkdir()
    for block in OWN_MODEL:
        assert block.reason is None
        block.run(folder, hub)
    assert (folder / "best.png").is_file()
    assert re.findall(r'"commit": "(\w+)"', (folder / "result.json").read_text()) == ["a" * 40] * 2


def test_the_guide_to_your_own_model_names_known_models() -> None:
    text = page("docs/use-it-with-your-model.md")
    known = {SANA.name, "sana-sprint-0.6b", SANA.pipeline, str(SANA.verifier)}
    assert {name for name in known if name not in text} == set()
    assert set(re.findall(r"sana-sprint-[\d.]+b", text)) <= KNOWN_MODELS.keys()


@pytest.fixture
def published(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Change to a folder in which the page's hub ids are folders."""
    for name, tiny in PUBLISHED.items():
        copy_folder(OFFICIAL / tiny, tmp_path / name)
    for name in ("mean", "variance"):
        shutil.copy(OFFICIAL / "norm" / "96" / f"block_7_{name}_bf16.pt", tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_published_verifier_is_imported_used_and_exported(
    published: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for block in (block for block in IMPORT if block.reason is None):
        block.run_here(capsys)
    assert (published / "forejudge-out" / "best.png").is_file()
    assert (published / "clip" / "best.png").is_file()
    assert (published / "published" / "block_7_mean_bf16.pt").is_file()


def test_the_import_guide_names_both_published_verifiers_and_every_command() -> None:
    code = "\n".join(block.code for block in IMPORT)
    for named in (*list(PUBLISHED)[:2], "verifier import", "verifier export", "--statistics", "official_scores"):
        assert named in code


@pytest.mark.slow
def test_the_search_guide_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    for block in (block for block in SEARCH if block.reason is None):
        block.run_here(capsys)
    assert (tmp_path / "forejudge-out" / "best.png").is_file()


def test_the_search_guide_has_an_example_of_every_policy() -> None:
    code = "\n".join(block.script for block in SEARCH if block.reason is None)
    assert {name for name in POLICIES if f"--{name.replace('_', '-')} " not in code} == set()


def test_tables_are_generated_from_the_benchmarks() -> None:
    spec = importlib.util.spec_from_file_location("write_tables", REPOSITORY / "scripts" / "write_tables.py")
    assert spec is not None
    assert spec.loader is not None
    writer = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(writer)
    for path in writer.DOCUMENTS:
        text = path.read_text()
        assert "<!-- table: " in text
        assert text == writer.with_tables(text), f"{path.name} is outdated: run python scripts/write_tables.py"


def test_blocks_are_read_off_a_page() -> None:
    text = (
        "# Title\n```bash\nmake demo  # first\nforejudge models\n```\ntext\n"
        "<!-- no-test: needs a GPU -->\n```python\nprint(1)\n```\n```text\nmake nothing\n```\n"
    )
    shell, library = find_blocks(text)
    assert (shell.line, shell.script, shell.reason) == (2, "forejudge models", None)
    assert (library.line, library.script, library.reason) == (8, "print(1)", "needs a GPU")
    assert shell.make_lines == ["make demo  # first"]


def test_targets_are_read_off_a_make_line() -> None:
    assert make_targets("make -j2 PYTHON=python3.12 check test  # both") == ["check", "test"]
