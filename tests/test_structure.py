"""The shape of the package: who may print, what importing it costs, what it exports."""

import ast
import subprocess
import sys
from pathlib import Path

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


def test_the_package_exports_the_loop() -> None:
    probe = "from forejudge import BestOfN; print(BestOfN.__module__)"
    assert run_python(probe).strip() == "forejudge.best_of_n"


def test_structure_names_every_package() -> None:
    page = (REPOSITORY / "docs" / "structure.md").read_text(encoding="utf-8")
    packages = {path.parent.name for path in PACKAGE.glob("*/__init__.py")}
    assert {name for name in packages if f"| `{name}/`" not in page} == set()
