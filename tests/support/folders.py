"""Model folders to be damaged."""

import shutil
from pathlib import Path


def copied(folder: Path, to: Path) -> Path:
    """A copy of a folder."""
    shutil.copytree(folder, to)
    return to
