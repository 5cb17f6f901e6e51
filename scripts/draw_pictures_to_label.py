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
PER_TASK, SHEETS, COLUMNS, TILE = 20, 4, 6, 176


def main(name: str) -> None:
    """Draw, and write strip and sheets."""
    generator = load_generator(name, torch.device("cpu"), torch.float32)
    images = []
    for number in range(PER_TASK):
        for task in TASKS:
            case = TestCase(descriptions(task, "validation")[number % 12], number)
            (candidates,) = case.group(seed=1, candidates=1, split="validation").draw(generator, [IMAGE], batch_size=1)
            images += candidates.images
    FOLDER.mkdir(parents=True, exist_ok=True)
    strip(images).save(FOLDER / "pictures.png")
    per_sheet = len(images) // SHEETS
    for sheet in range(SHEETS):
        first = sheet * per_sheet
        numbered_sheet(images[first : first + per_sheet], first).save(FOLDER / f"sheet_{sheet + 1}.png")


def strip(images: list[Image.Image]) -> Image.Image:
    """Ten pictures a row, at their own size."""
    size = images[0].width
    sheet = Image.new("RGB", (10 * size, len(images) // 10 * size))
    for index, image in enumerate(images):
        sheet.paste(image, (index % 10 * size, index // 10 * size))
    return sheet


def numbered_sheet(images: list[Image.Image], first: int) -> Image.Image:
    """Enlarged pictures with their numbers."""
    rows = len(images) // COLUMNS
    sheet = Image.new("RGB", (COLUMNS * TILE, rows * (TILE + 20)), "white")
    generate = ImageDraw.Draw(sheet)
    for index, image in enumerate(images):
        left, top = index % COLUMNS * TILE, index // COLUMNS * (TILE + 20)
        generate.text((left + 4, top + 2), str(first + index), "black", ImageFont.load_default(14))
        sheet.paste(image.resize((TILE - 6, TILE - 6), Image.Resampling.BICUBIC), (left + 3, top + 20))
    return sheet


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "miniature")
