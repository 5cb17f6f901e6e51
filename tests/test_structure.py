"""The shape of the package: who may print, what importing it costs, what it exports."""

import ast
import subprocess
import sys
from pathlib import Path

import forejudge
from forejudge.best_of_n import BestOfN

REPOSITORY = Path(__file__).resolve().parents[1]
PACKAGE = REPOSITORY / "src" / "forejudge"


def printing_lines(source: str) -> list[int]:
    """Lines on which a module calls `print`."""
    return [
        node.lineno
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "print"
    ]


def test_only_the_command_line_prints() -> None:
    printing = [
        f"{path.relative_to(PACKAGE)}, line {line}"
        for path in sorted(PACKAGE.rglob("*.py"))
        if path.relative_to(PACKAGE).parts[0] != "cli"
        for line in printing_lines(path.read_text(encoding="utf-8"))
    ]
    assert not printing, f"print outside cli/: {printing}"


def careless_calls(source: str) -> list[str]:
    """Calls that fail on some paths, or read and write text differently on another machine or locale."""
    return [
        f"{node.lineno}: {node.func.attr}"
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)
        if (node.func.attr in ("is_file", "is_dir", "exists") and not node.args)
        or (node.func.attr in ("read_text", "write_text") and "encoding" not in [word.arg for word in node.keywords])
    ]


def test_paths_are_checked_in_one_place_and_text_is_utf8() -> None:
    assert careless_calls("path.is_file()\npath.read_text()\n") == ["1: is_file", "2: read_text"]
    assert {
        path.name: calls for path in PACKAGE.rglob("*.py") if (calls := careless_calls(path.read_text("utf-8")))
    } == {}


def run_python(code: str) -> str:
    """Run the code in a fresh interpreter and return its output."""
    command = [sys.executable, "-c", code]
    result = subprocess.run(command, capture_output=True, text=True, timeout=600)
    assert result.returncode == 0, result.stderr
    return result.stdout


def test_importing_the_package_loads_no_model_library() -> None:
    heavy = ("torch", "diffusers", "transformers")
    probe = f"import sys, forejudge; print([name for name in {heavy} if name in sys.modules])"
    assert run_python(probe).strip() == "[]"


def test_warnings_reach_users_who_configure_no_logging() -> None:
    warn = "logging.getLogger('forejudge').warning('other weights')"
    probe = f"import logging, sys, forejudge; sys.stderr = sys.stdout; {warn}"
    assert run_python(probe) == "other weights\n"


def test_the_package_exports_the_loop() -> None:
    assert forejudge.BestOfN is BestOfN


def test_structure_names_every_package() -> None:
    page = (REPOSITORY / "docs" / "structure.md").read_text(encoding="utf-8")
    packages = {path.parent.name for path in PACKAGE.glob("*/__init__.py")}
    assert {name for name in packages if f"| `{name}/`" not in page} == set()
