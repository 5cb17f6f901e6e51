"""Whether there is room for what a long work will store, told before it begins."""

import shutil
from pathlib import Path

from forejudge.errors import OutputError
from forejudge.files import existing_part


def check_room(folder: Path, needed: int, what: str) -> None:
    """Raises OutputError where fewer than `needed` bytes are free on the disk of a folder, which may be yet to come."""
    free = free_bytes(folder)
    if needed > free:
        raise OutputError(
            f"{folder}: {what} take {in_words(needed)} and {in_words(free)} are free: make room, choose another --out, "
            "or store less of them"
        )


def free_bytes(folder: Path) -> int:
    """On the disk of a folder, which may be yet to come."""
    return shutil.disk_usage(existing_part(folder)).free


def in_words(size: int) -> str:
    """So many bytes, for people."""
    return f"{size / 1e9:.1f} GB" if size >= 1e9 else f"{size / 1e6:.1f} MB"
