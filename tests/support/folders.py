"""Copies of folders, for tests that damage them."""

import shutil
from pathlib import Path


def copy_folder(folder: Path, destination: Path) -> Path:
    """Copy a folder and return the copy."""
    shutil.copytree(folder, destination)
    return destination
