"""The shape of the package: where imports point, what the layout page names, who may print."""

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[1]
PACKAGE = REPOSITORY / "src" / "forejudge"
LAYOUT_PAGE = REPOSITORY / "docs" / "structure.md"
LONGEST_FILE = 300  # lines

# Lowest first. A room imports rooms of lower levels and itself; rooms of one level stay apart.
LEVELS = (
    ("types", "errors"),
    ("noise", "selection", "budget", "clock", "library_calls", "device", "journal", "files", "progress", "shard"),
    ("checkpoint", "compiling"),
    ("library_models", "hub"),
    ("generators",),
    ("verifiers",),
    ("draw", "result", "asked"),
    ("costs", "search", "provenance"),
    ("search_record",),
    ("best_of_n",),
    ("profiling",),
    ("evaluation",),
    ("training",),
    ("miniature",),
    ("report",),
    ("cli",),
)
LEVEL_OF_ROOM = {room: level for level, rooms in enumerate(LEVELS) for room in rooms}
# Names that a room may take from the package itself, which otherwise only exports: the command line is a user of it.
SHARED_BY_ROOT = {"__version__"}
PUBLIC = {"BestOfN", "ForejudgeError", "Result", "SamplingParams"}


@dataclass(frozen=True)
class Module:
    """One source file; its name is dotted, without `forejudge`: `types`, `generators.base`."""

    name: str
    source: str
    is_package: bool = False

    @property
    def room(self) -> str:
        return self.name.partition(".")[0]

    @property
    def tree(self) -> ast.Module:
        return ast.parse(self.source)


def load_modules() -> list[Module]:
    """All source files of the package."""
    modules = []
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(PACKAGE).with_suffix("").parts
        is_package = parts[-1] == "__init__"
        name = ".".join(parts[:-1] if is_package else parts)
        modules.append(Module(name, path.read_text(encoding="utf-8"), is_package))
    return modules


def imported_from(node: ast.ImportFrom, importer: Module) -> str:
    """The absolute module an import statement takes its names from, dots resolved."""
    if node.level == 0:
        return node.module or ""
    parents = ["forejudge", *importer.name.split(".")] if importer.name else ["forejudge"]
    climb = node.level - 1 if importer.is_package else node.level
    base = parents[: len(parents) - climb]
    return ".".join([*base, node.module] if node.module else base)


def internal_imports(module: Module) -> Iterator[str]:
    """What a module imports of ours, inside functions too, without the leading `forejudge.`."""
    for node in ast.walk(module.tree):
        if isinstance(node, ast.Import):
            targets = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            origin = imported_from(node, module)
            targets = [f"{origin}.{alias.name}" for alias in node.names]
        else:
            continue
        yield from (
            target.removeprefix("forejudge").removeprefix(".")
            for target in targets
            if target.split(".")[0] == "forejudge"
        )


def wrong_imports(module: Module) -> list[str]:
    """One line for each import that does not point down the levels."""
    if module.room not in LEVEL_OF_ROOM:
        return [f"{module.room} has no level: place it in LEVELS and in docs/structure.md"]
    complaints = []
    for target in internal_imports(module):
        room = target.partition(".")[0]
        if room == module.room or room in SHARED_BY_ROOT or (module.room == "cli" and room in PUBLIC):
            continue
        if room not in LEVEL_OF_ROOM:
            complaints.append(f"{module.name} imports {room!r} from forejudge: name its module")
        elif LEVEL_OF_ROOM[room] >= LEVEL_OF_ROOM[module.room]:
            complaints.append(f"{module.name} imports forejudge.{target}, which is not below it")
    return complaints


def printing_lines(module: Module) -> list[int]:
    """Lines on which a module calls `print`."""
    return [
        node.lineno
        for node in ast.walk(module.tree)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "print"
    ]


def documented_paths() -> list[str]:
    """Paths, relative to the package, of the layout page's rows: "- `path` — text"."""
    page = LAYOUT_PAGE.read_text(encoding="utf-8")
    return re.findall(r"^\s*- `([^`]+)` — \S", page, flags=re.MULTILINE)


def existing_paths() -> set[str]:
    """Modules (`room/file.py`) and rooms (`room/`, which stands for its `__init__.py` as well)."""
    paths = set()
    for path in PACKAGE.rglob("*.py"):
        relative = path.relative_to(PACKAGE)
        is_room = path.name == "__init__.py" and path.parent != PACKAGE
        paths.add(f"{relative.parent.as_posix()}/" if is_room else relative.as_posix())
    return paths


MODULES = load_modules()
ROOMS = [module for module in MODULES if module.name]


def test_imports_point_down_the_levels() -> None:
    complaints = [line for module in ROOMS for line in wrong_imports(module)]
    assert not complaints, "\n".join(complaints)


@pytest.mark.parametrize(
    ("module", "complaint"),
    [
        (Module("types", "from forejudge.errors import InvalidRequest"), "not below it"),
        (Module("noise", "def f():\n    import forejudge.policies"), "not below it"),
        (Module("generators.flux", "from ..verifiers import base"), "forejudge.verifiers.base"),
        (Module("generators", "from ..cli.app import main", is_package=True), "cli.app"),
        (Module("verifiers.clip", "from forejudge import BestOfN"), "name its module"),
        (Module("training.losses", "from forejudge import miniature"), "not below it"),
        (Module("attic", ""), "has no level"),
    ],
)
def test_wrong_imports_are_seen(module: Module, complaint: str) -> None:
    assert complaint in "\n".join(wrong_imports(module))


@pytest.mark.parametrize(
    "module",
    [
        Module("cli.app", "import torch\nfrom forejudge import __version__, best_of_n"),
        Module("generators", "from .base import Generator", is_package=True),
        Module("generators.flux", "from .base import Generator\nfrom ..types import Stage"),
        Module("verifiers.clip", "from forejudge.generators.base import Generator"),
    ],
)
def test_right_imports_are_let_through(module: Module) -> None:
    assert wrong_imports(module) == []


def test_layout_page_names_what_exists() -> None:
    documented = documented_paths()
    assert len(documented) == len(set(documented)), "a path has two rows in docs/structure.md"
    missing = sorted(existing_paths() - set(documented))
    assert not missing, f"without a row in docs/structure.md: {missing}"
    stale = sorted(set(documented) - existing_paths())
    assert not stale, f"in docs/structure.md, but not in the package: {stale}"


def test_only_the_command_line_prints() -> None:
    printing = [
        f"{module.name}, line {line}" for module in MODULES if module.room != "cli" for line in printing_lines(module)
    ]
    assert not printing, f"print outside cli/: {printing}"


def run_python(code: str) -> str:
    """What a fresh interpreter prints for the code."""
    command = [sys.executable, "-c", code]
    result = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert result.returncode == 0, result.stderr
    return result.stdout


def test_importing_the_package_loads_no_model_library() -> None:
    heavy = ("torch", "diffusers", "transformers")
    probe = f"import sys, forejudge; print([name for name in {heavy} if name in sys.modules])"
    assert run_python(probe).strip() == "[]"


def test_the_package_exports_the_loop() -> None:
    probe = "from forejudge import BestOfN; print(BestOfN.__module__)"
    assert run_python(probe).strip() == "forejudge.best_of_n"


def test_no_file_has_outgrown_its_room() -> None:
    lengths = {module.name: len(module.source.splitlines()) for module in MODULES}
    long = {name: lines for name, lines in lengths.items() if lines > LONGEST_FILE}
    assert not long, f"longer than {LONGEST_FILE} lines: {long}"
