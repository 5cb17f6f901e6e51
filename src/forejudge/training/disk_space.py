"""Whether there is room for what a long work will store, told before it begins."""

import shutil
from pathlib import Path

from forejudge.errors import OutputError


def check_room(folder: Path, needed: int) -> None:
    """Raises OutputError where fewer than `needed` bytes are free on the disk of a folder, which may be yet to come."""
    there = next(place for place in (folder.absolute(), *folder.absolute().parents) if place.exists())
    free = shutil.disk_usage(there).free
    if needed > free:
        raise OutputError(
            f"{folder}: the states to be recorded take {in_words(needed)} and {in_words(free)} are free: "
            "make room, choose another --out, or draw fewer candidates"
        )


def in_words(size: int) -> str:
    """So many bytes, for people."""
    return f"{size / 1e9:.1f} GB" if size >= 1e9 else f"{size / 1e6:.1f} MB"
