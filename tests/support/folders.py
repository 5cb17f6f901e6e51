"""Model folders to be damaged."""

import shutil
from pathlib import Path


def copy_folder(folder: Path, destination: Path) -> Path:
    """A copy of a folder."""
    shutil.copytree(folder, destination)
    return destination
