"""Draw 120 pictures for people to label: `python scripts/draw_pictures_to_label.py [GENERATOR]`.

Writes tests/fixtures/by_eye/pictures.png, all pictures in one strip as the generator made them, and sheet_1.png to
sheet_4.png, enlarged and numbered, without their prompts. Labels go into labels.json beside them before the detector is
run on them: for each picture the objects that are plainly there, and those about which one may differ.
"""

import sys
from pathlib import Path

import torch
from PIL import Image, ImageDraw, ImageFont

from forejudge.generators import load_generator
from forejudge.miniature.prompts import TestCase, descriptions
from forejudge.prompts.geneval import TASKS
from forejudge.types import IMAGE

FOLDER = Path(__file__).resolve().parents[1] / "tests" / "fixtures" / "by_eye"
EACH, SHEETS, COLUMNS, TILE = 20, 4, 6, 176


def main(name: str) -> None:
    """Draw, and write strip and sheets."""
    generator = load_generator(name, torch.device("cpu"), torch.float32)
    pictures = []
    for number in range(EACH):
        for task in TASKS:
            case = TestCase(descriptions(task, "validation")[number % 12], number)
            (candidates,) = case.group(seed=1, candidates=1, split="validation").draw(generator, [IMAGE], batch_size=1)
            pictures += candidates.pictures
    FOLDER.mkdir(parents=True, exist_ok=True)
    strip(pictures).save(FOLDER / "pictures.png")
    per_sheet = len(pictures) // SHEETS
    for sheet in range(SHEETS):
        first = sheet * per_sheet
        numbered(pictures[first : first + per_sheet], first).save(FOLDER / f"sheet_{sheet + 1}.png")


def strip(pictures: list[Image.Image]) -> Image.Image:
    """Ten pictures a row, at their own size."""
    size = pictures[0].width
    image = Image.new("RGB", (10 * size, len(pictures) // 10 * size))
    for place, picture in enumerate(pictures):
        image.paste(picture, (place % 10 * size, place // 10 * size))
    return image


def numbered(pictures: list[Image.Image], first: int) -> Image.Image:
    """Enlarged pictures with their numbers."""
    rows = len(pictures) // COLUMNS
    sheet = Image.new("RGB", (COLUMNS * TILE, rows * (TILE + 20)), "white")
    draw = ImageDraw.Draw(sheet)
    for place, picture in enumerate(pictures):
        left, top = place % COLUMNS * TILE, place // COLUMNS * (TILE + 20)
        draw.text((left + 4, top + 2), str(first + place), "black", ImageFont.load_default(14))
        sheet.paste(picture.resize((TILE - 6, TILE - 6), Image.Resampling.BICUBIC), (left + 3, top + 20))
    return sheet


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "miniature")
