"""Images for people to label, against which the detector is tested.

Labels go into labels.json before the detector is run on the images: for each image the objects that are clearly there,
and those about which people may differ.
"""

from pathlib import Path

import torch
from PIL import Image, ImageDraw, ImageFont

from forejudge.generators import load_generator
from forejudge.miniature.prompts import TestCase, descriptions
from forejudge.prompts.geneval import TASKS
from forejudge.types import IMAGE

FOLDER = Path(__file__).resolve().parents[2] / "tests" / "fixtures" / "by_eye"
PER_TASK, SHEETS, COLUMNS, TILE = 20, 4, 6, 176


def write_sheets(generator_name: str) -> Path:
    """Generate 120 images and write images.png, all in one strip, and sheet_1.png to sheet_4.png, numbered, no prompts.

    Return the folder.
    """
    generator = load_generator(generator_name, torch.device("cpu"), torch.float32)
    images: list[Image.Image] = []
    for number in range(PER_TASK):
        for task in TASKS:
            case = TestCase(descriptions(task, "validation")[number % 12], number)
            (candidates,) = case.group(seed=1, candidates=1, split="validation").generate(
                generator, [IMAGE], batch_size=1
            )
            images += candidates.images
    FOLDER.mkdir(parents=True, exist_ok=True)
    strip(images).save(FOLDER / "images.png")
    per_sheet = len(images) // SHEETS
    for sheet in range(SHEETS):
        first = sheet * per_sheet
        numbered_sheet(images[first : first + per_sheet], first).save(FOLDER / f"sheet_{sheet + 1}.png")
    return FOLDER


def strip(images: list[Image.Image]) -> Image.Image:
    """Paste ten images per row, at their own size."""
    size = images[0].width
    sheet = Image.new("RGB", (10 * size, len(images) // 10 * size))
    for index, image in enumerate(images):
        sheet.paste(image, (index % 10 * size, index // 10 * size))
    return sheet


def numbered_sheet(images: list[Image.Image], first: int) -> Image.Image:
    """Paste enlarged images with their numbers, counted from `first`."""
    rows = len(images) // COLUMNS
    sheet = Image.new("RGB", (COLUMNS * TILE, rows * (TILE + 20)), "white")
    draw = ImageDraw.Draw(sheet)
    for index, image in enumerate(images):
        left, top = index % COLUMNS * TILE, index // COLUMNS * (TILE + 20)
        draw.text((left + 4, top + 2), str(first + index), "black", ImageFont.load_default(14))
        sheet.paste(image.resize((TILE - 6, TILE - 6), Image.Resampling.BICUBIC), (left + 3, top + 20))
    return sheet
