"""The detector against 120 generated images that were labeled by eye before it saw them."""

import json
from collections import Counter
from pathlib import Path

import numpy as np
from PIL import Image

from forejudge.evaluators.geneval_rules import Thresholds
from forejudge.miniature.detector import detect

FOLDER = Path(__file__).parents[1] / "fixtures" / "by_eye"
SIZE = 64


def images() -> list[np.ndarray]:
    strip = np.asarray(Image.open(FOLDER / "images.png").convert("RGB"))
    rows, columns = strip.shape[0] // SIZE, strip.shape[1] // SIZE
    return [strip[r * SIZE : (r + 1) * SIZE, c * SIZE : (c + 1) * SIZE] for r in range(rows) for c in range(columns)]


def agrees(image: np.ndarray, label: dict[str, list[str]]) -> bool:
    """Return whether all clear objects are detected, and only objects that someone saw."""
    confident = [d for d in detect(image) if d.confidence > Thresholds().detection]
    plain, doubtful = Counter(label["clear"]), Counter(label["ambiguous"])
    # An object of no clear colour agrees with an eye that hesitates between several.
    doubtful_kinds = {name.split()[1] for name in doubtful}
    seen = Counter(f"{d.color} {d.class_name}" for d in confident if d.color or d.class_name not in doubtful_kinds)
    return not plain - seen and not seen - (plain + doubtful)


def test_it_agrees_with_the_eye() -> None:
    labels = json.loads((FOLDER / "labels.json").read_text())
    agreed = [agrees(image, label) for image, label in zip(images(), labels, strict=True)]
    assert len(agreed) == 120
    assert np.mean(agreed) >= 0.95, f"differs on {[n for n, agree in enumerate(agreed) if not agree]}"


def test_labels_hold_ghosts_and_doubles_and_not_only_good_images() -> None:
    labels = json.loads((FOLDER / "labels.json").read_text())
    assert sum(bool(label["ambiguous"]) for label in labels) >= 20
    assert {len(label["clear"]) for label in labels} >= {0, 1, 2}
