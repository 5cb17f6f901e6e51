"""The folder of one search: best.png, result.json, other finished images and a contact sheet of them."""

import math
import re
import textwrap
from collections.abc import Collection
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from PIL import Image, ImageDraw, ImageFont, ImageOps

from forejudge.cli.tables import describe_winner, format_answer, format_probability
from forejudge.files import is_file, remove, write_image, write_text

if TYPE_CHECKING:
    from forejudge import Result
    from forejudge.result import CandidateRecord

_RECORD = "result.json"
_EXTRA_FILES = re.compile(r"contact_sheet\.png|top_\d+\.png|candidates/\d{4,}\.png")
_IMAGE_SIZE = 192  # pixels of the longer side
_GAP = 24
_CAPTION_HEIGHT = 46
_CELL = (_IMAGE_SIZE + _GAP, _IMAGE_SIZE + _CAPTION_HEIGHT + _GAP)
_LINE = 28  # of the title
_TITLE, _TEXT, _NOTE = 20, 16, 12  # font sizes
_BACKGROUND, _FOREGROUND, _MUTED = "#ffffff", "#1d1d1f", "#6e6e73"
_YES, _NO, _WINNER = "#1a7f37", "#b42318", "#0969da"
_FRAME = 5


def write_result(folder: Path, result: "Result", finish_all: bool) -> None:
    """Write the images and the record of a search, replacing those of an earlier one. Raises OutputError."""
    extra_images = _extra_images(result, finish_all)
    stale = _stale_images(folder) - extra_images.keys()
    write_image(folder / "best.png", result.image)
    write_text(folder / _RECORD, record_text(result))
    for name, image in extra_images.items():
        write_image(folder / name, image)
    for name in stale:
        remove(folder / name)


def remove_other_results(folder: Path, kept: Collection[Path]) -> None:
    """Remove the results of an earlier search in a folder and its image folders, except those in the `kept` ones."""
    for place in (folder, *folder.glob("image_*")):
        if place in kept or not is_file(place / _RECORD):
            continue
        for name in (*_stale_images(place), "best.png", _RECORD):
            remove(place / name)
        for emptied in (place / "candidates", place):
            with suppress(OSError):  # holds files of others
                emptied.rmdir()


def record_text(result: "Result") -> str:
    """Return the content of result.json."""
    return result.record.model_dump_json(indent=2) + "\n"


def _extra_images(result: "Result", finish_all: bool) -> dict[str, "Image.Image"]:
    """Return all images except best.png, by file name."""
    if finish_all:
        candidates = {f"candidates/{index:04}.png": result.images[index] for index in sorted(result.images)}
        return candidates | {"contact_sheet.png": contact_sheet(result)}
    extra_images = [image for index, image in result.images.items() if index != result.record.winner]
    return {f"top_{rank}.png": image for rank, image in enumerate(extra_images, start=2)}


def _stale_images(folder: Path) -> set[str]:
    """Return the names of other images of the record in the folder; none without a record."""
    if not is_file(folder / _RECORD):
        return set()
    names = {path.relative_to(folder).as_posix() for path in (*folder.glob("*.png"), *folder.glob("candidates/*.png"))}
    return {name for name in names if _EXTRA_FILES.fullmatch(name)}


def contact_sheet(result: "Result") -> Image.Image:
    """Draw all finished candidates in order of generation, with verdicts below and a frame around the winner."""
    indices = sorted(result.images)
    columns = min(len(indices), max(4, math.ceil(math.sqrt(len(indices)))))
    width = max(columns, 2) * _CELL[0] + _GAP
    heading = _wrap_text(result.record.prompt, width, _TITLE), _wrap_text(describe_winner(result.record), width, _TEXT)
    top = _GAP + _LINE * sum(map(len, heading))
    sheet = Image.new("RGB", (width, top + _GAP + math.ceil(len(indices) / columns) * _CELL[1]), _BACKGROUND)
    draw = ImageDraw.Draw(sheet)
    _draw_heading(draw, *heading)
    for position, index in enumerate(indices):
        row, column = divmod(position, columns)
        corner = _GAP + column * _CELL[0], top + _GAP + row * _CELL[1]
        is_winner = index == result.record.winner
        _paste_image(sheet, corner, result.images[index], is_winner)
        _draw_caption(draw, corner, result.candidates[index], is_winner)
    return sheet


def _wrap_text(text: str, width: int, size: int) -> list[str]:
    """Break text into lines that fit; a letter is about half as wide as it is high."""
    return textwrap.wrap(text, (width - 2 * _GAP) * 2 // size, max_lines=6)


def _draw_heading(draw: ImageDraw.ImageDraw, title: list[str], subtitle: list[str]) -> None:
    for row, line in enumerate(title):
        draw.text((_GAP, _GAP + row * _LINE), line, _FOREGROUND, _font(_TITLE))
    for row, line in enumerate(subtitle, start=len(title)):
        draw.text((_GAP, _GAP + row * _LINE), line, _MUTED, _font(_TEXT))


def _paste_image(sheet: Image.Image, corner: tuple[int, int], image: Image.Image, is_winner: bool) -> None:
    """Paste one image, scaled to fit."""
    thumbnail = ImageOps.pad(image.convert("RGB"), (_IMAGE_SIZE, _IMAGE_SIZE), Image.Resampling.LANCZOS, _BACKGROUND)
    if is_winner:
        thumbnail = ImageOps.expand(thumbnail, _FRAME, _WINNER)
    offset = _FRAME if is_winner else 0
    sheet.paste(thumbnail, (corner[0] - offset, corner[1] - offset))


def _draw_caption(
    draw: ImageDraw.ImageDraw, corner: tuple[int, int], candidate: "CandidateRecord", is_winner: bool
) -> None:
    """Draw the verdict below an image."""
    x, y = corner[0], corner[1] + _IMAGE_SIZE
    answer_text = format_answer(candidate)
    color = {"yes": _YES, "no": _NO}.get(answer_text, _FOREGROUND)
    draw.text((x, y + 10), f"{answer_text}  {format_probability(candidate)}".strip(), color, _font(_TEXT))
    draw.text((x, y + 31), f"#{candidate.index}   seed {candidate.seed}", _MUTED, _font(_NOTE))
    if is_winner:
        draw.text((x + _IMAGE_SIZE, y + 10), "winner", _WINNER, _font(_TEXT), anchor="ra")


def _font(size: int) -> "ImageFont.FreeTypeFont | ImageFont.ImageFont":
    return ImageFont.load_default(size)
