"""The folder of one search: best.png, result.json, and what else was finished."""

import math
import re
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING

from PIL import Image, ImageDraw, ImageFont, ImageOps

from forejudge.cli.tables import answer, chance, outcome
from forejudge.files import remove, write_image, write_text

if TYPE_CHECKING:
    from forejudge import Result
    from forejudge.result import CandidateRecord


# FOLDED: All finished candidates of a search on one sheet: verdicts below the pictures, a frame around the winner.


_PICTURE = 192  # pixels of a picture's longer side
_GAP = 24
_CAPTION = 46
_CELL = (_PICTURE + _GAP, _PICTURE + _CAPTION + _GAP)
_LINE = 28  # of the title
_TITLE, _TEXT, _NOTE = 20, 16, 12  # sizes of letters
_PAPER, _INK, _FAINT = "#ffffff", "#1d1d1f", "#6e6e73"
_YES, _NO, _WINNER = "#1a7f37", "#b42318", "#0969da"
_FRAME = 5


def contact_sheet(result: "Result") -> Image.Image:
    """Title and outcome on top, then the pictures in the order in which they were drawn."""
    indices = sorted(result.images)
    columns = min(len(indices), max(4, math.ceil(math.sqrt(len(indices)))))
    width = max(columns, 2) * _CELL[0] + _GAP
    heading = _wrapped(result.record.prompt, width, _TITLE), _wrapped(outcome(result.record), width, _TEXT)
    top = _GAP + _LINE * sum(map(len, heading))
    sheet = Image.new("RGB", (width, top + _GAP + math.ceil(len(indices) / columns) * _CELL[1]), _PAPER)
    draw = ImageDraw.Draw(sheet)
    _write_heading(draw, *heading)
    for place, index in enumerate(indices):
        row, column = divmod(place, columns)
        corner = _GAP + column * _CELL[0], top + _GAP + row * _CELL[1]
        is_winner = index == result.record.winner
        _place(sheet, corner, result.images[index], is_winner)
        _caption(draw, corner, result.candidates[index], is_winner)
    return sheet


def _wrapped(text: str, width: int, size: int) -> list[str]:
    """Lines that fit: a letter is about half as wide as it is high."""
    return textwrap.wrap(text, (width - 2 * _GAP) * 2 // size, max_lines=6)


def _write_heading(draw: ImageDraw.ImageDraw, title: list[str], below: list[str]) -> None:
    for row, line in enumerate(title):
        draw.text((_GAP, _GAP + row * _LINE), line, _INK, _font(_TITLE))
    for row, line in enumerate(below, start=len(title)):
        draw.text((_GAP, _GAP + row * _LINE), line, _FAINT, _font(_TEXT))


def _place(sheet: Image.Image, corner: tuple[int, int], picture: Image.Image, is_winner: bool) -> None:
    """One picture, enlarged or reduced to fit."""
    fitted = ImageOps.pad(picture.convert("RGB"), (_PICTURE, _PICTURE), Image.Resampling.LANCZOS, _PAPER)
    if is_winner:
        fitted = ImageOps.expand(fitted, _FRAME, _WINNER)
    offset = _FRAME if is_winner else 0
    sheet.paste(fitted, (corner[0] - offset, corner[1] - offset))


def _caption(draw: ImageDraw.ImageDraw, corner: tuple[int, int], candidate: "CandidateRecord", is_winner: bool) -> None:
    """What was said of a picture, below it."""
    x, y = corner[0], corner[1] + _PICTURE
    says = answer(candidate)
    colour = {"yes": _YES, "no": _NO}.get(says, _INK)
    draw.text((x, y + 10), f"{says}  {chance(candidate)}".strip(), colour, _font(_TEXT))
    draw.text((x, y + 31), f"#{candidate.index}   seed {candidate.seed}", _FAINT, _font(_NOTE))
    if is_winner:
        draw.text((x + _PICTURE, y + 10), "winner", _WINNER, _font(_TEXT), anchor="ra")


def _font(size: int) -> "ImageFont.FreeTypeFont | ImageFont.ImageFont":
    return ImageFont.load_default(size)


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


def _other_pictures(result: "Result", everything: bool) -> dict[str, "Image.Image"]:
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
