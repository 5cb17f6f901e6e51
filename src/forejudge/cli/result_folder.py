"""The folder of one search: best.png, result.json, and what else was finished."""

import re
from pathlib import Path
from typing import TYPE_CHECKING

from forejudge.cli.contact_sheet import contact_sheet
from forejudge.files import remove, write_image, write_text

if TYPE_CHECKING:
    from PIL.Image import Image

    from forejudge import Result

_RECORD = "result.json"
_OTHERS = re.compile(r"contact_sheet\.png|top_\d+\.png|candidates/\d{4,}\.png")


def write_result(folder: Path, result: "Result", everything: bool) -> None:
    """Write a search's pictures and record, in the place of those of an earlier one. Raises OutputError."""
    others = _other_pictures(result, everything)
    stale = _earlier_pictures(folder) - others.keys()
    write_image(folder / "best.png", result.image)
    write_text(folder / _RECORD, record_text(result))
    for name, picture in others.items():
        write_image(folder / name, picture)
    for name in stale:
        remove(folder / name)


def record_text(result: "Result") -> str:
    """What result.json holds."""
    return result.record.model_dump_json(indent=2) + "\n"


def _other_pictures(result: "Result", everything: bool) -> dict[str, "Image"]:
    """All but best.png, by file name."""
    if everything:
        candidates = {f"candidates/{index:04}.png": result.images[index] for index in sorted(result.images)}
        return candidates | {"contact_sheet.png": contact_sheet(result)}
    others = [image for index, image in result.images.items() if index != result.record.winner]
    return {f"top_{rank}.png": image for rank, image in enumerate(others, start=2)}


def _earlier_pictures(folder: Path) -> set[str]:
    """Names of other pictures that belong to the record that lies there now; none without a record."""
    if not (folder / _RECORD).is_file():
        return set()
    names = {path.relative_to(folder).as_posix() for path in (*folder.glob("*.png"), *folder.glob("candidates/*.png"))}
    return {name for name in names if _OTHERS.fullmatch(name)}
