"""Folders of images in GenEval's layout."""

import json
from collections.abc import Sequence
from pathlib import Path

from PIL import Image


def metadata_line(name: str, color: str = "red", tag: str = "colors") -> str:
    """Return the metadata line of a prompt such as "a photo of a red star"."""
    include = [{"class": name, "count": 1, "color": color}]
    return json.dumps({"tag": tag, "include": include, "prompt": f"a photo of a {color} {name}"})


def write_prompt_folder(folder: Path, number: int, metadata: str, images: Sequence[Image.Image]) -> Path:
    """Write one prompt's folder and return it."""
    prompt = folder / f"{number:05}"
    (prompt / "samples").mkdir(parents=True)
    (prompt / "metadata.jsonl").write_text(metadata + "\n")
    for index, image in enumerate(images):
        image.save(prompt / "samples" / f"{index:04}.png")
    return prompt


def solid_image(color: str, size: int = 8) -> Image.Image:
    """Return an image of one color."""
    return Image.new("RGB", (size, size), color)
