"""Refuse words and phrases that CONTRIBUTING.md's glossary replaces: `python scripts/check_language.py`."""

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
# Whoever rewords one of these usually finds the sentence shorter.
REFUSED = {
    r"\bperfect judge\b": "oracle",
    r"\bdistance closed\b": "oracle gap closed",
    r"\blie on disk\b": "are on disk",
    r"\bnobody\b": "no one, or a passive",
    r"\bbut for\b": "except",
    r"\bso many\b": "the count itself",
    r"\bdrawn anew\b": "regenerated",
    r"\bcolou?rs? anew\b": "again",
    r"\blicen[c]e": "license",
    r"\b[Nn]ormalis": "normaliz",
    r"\blabell(?:ed|ing)\b": "labeled, labeling",
    r"\bjudgement": "evaluation",
    r"\bpictures?\b": "image",
    r"\bchunks?\b": "batch",
    r"\btrainee\b": "trainable verifier",
}
DOCSTRING_OPENINGS = re.compile(r"(What|Of|The same|Who|Whether|Where|That|So)\b")
EXEMPT = re.compile(r"#.*\bvocabulary\b")  # strings the miniature's tokenizers were trained on say so on their line
SKIPPED = ("CHANGELOG.md", "scripts/check_language.py", "src/forejudge/miniature/weights/")


def tracked_files() -> list[Path]:
    """List the tracked Python and Markdown files."""
    names = subprocess.run(["git", "ls-files", "*.py", "*.md"], cwd=ROOT, capture_output=True, text=True, check=True)
    return [ROOT / name for name in names.stdout.splitlines() if not name.startswith(SKIPPED)]


def refused_phrases(path: Path) -> Iterator[str]:
    """Yield one line for each refused phrase in a file."""
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        if EXEMPT.search(line):
            continue
        for pattern, instead in REFUSED.items():
            if found := re.search(pattern, line, re.IGNORECASE):
                yield f"{path.relative_to(ROOT)}:{number}: {found[0]!r}: write {instead}"


def refused_openings(path: Path) -> Iterator[str]:
    """Yield one line for each docstring that opens like a translated heading."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            docstring = ast.get_docstring(node)
            if docstring and (found := DOCSTRING_OPENINGS.match(docstring)):
                line = getattr(node, "lineno", 1)
                yield f"{path.relative_to(ROOT)}:{line}: docstring opens with {found[0]!r}: use a verb or a noun"


def main() -> int:
    """Print every finding and return 1 if there is one."""
    files = tracked_files()
    findings = [finding for path in files for finding in refused_phrases(path)]
    findings += [finding for path in files if path.suffix == ".py" for finding in refused_openings(path)]
    print("\n".join(findings) or f"{len(files)} files: no refused phrases")
    return min(len(findings), 1)


if __name__ == "__main__":
    sys.exit(main())
