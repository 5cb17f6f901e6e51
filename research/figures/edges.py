"""Sharpness of generated images: edge widths of detected objects beside those of rendered ones from the same noise."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from forejudge.evaluators.geneval_rules import Detection
from forejudge.generators.base import Generator
from forejudge.miniature.detector import detect
from forejudge.miniature.prompts import cases
from forejudge.miniature.scenes import NOISE_SHAPE, SceneConstraints, couple, render, to_pil
from forejudge.noise import noise_batch
from forejudge.progress import ProgressCallback, Stopwatch
from forejudge.result import provenance
from forejudge.types import IMAGE


def edge_widths(image: Image.Image, detections: Sequence[Detection]) -> list[float]:
    """Measure for each object the pixels between 10 % and 90 % of its contrast, per pixel of outline."""
    pixels = np.asarray(image, dtype=np.float64) / 255
    background = np.median(np.concatenate([pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1]]), axis=0)
    widths = [_edge_width(pixels, background, detection) for detection in detections]
    return [width for width in widths if width is not None]


def _edge_width(pixels: NDArray[np.float64], background: NDArray[np.float64], detection: Detection) -> float | None:
    left, top, right, bottom = (round(side) for side in detection.box)
    window = pixels[max(top - 3, 0) : bottom + 3, max(left - 3, 0) : right + 3] - background
    strength = np.linalg.norm(window, axis=2)
    core = np.quantile(strength, 0.9)
    if core < 0.05:
        return None
    share = strength / core
    inside = share > 0.5
    outline = int(np.count_nonzero(inside[1:] != inside[:-1]) + np.count_nonzero(inside[:, 1:] != inside[:, :-1]))
    return float(np.count_nonzero((share > 0.1) & (share < 0.9))) / max(outline, 1)


def edge_figures(generator: Generator, per_task: int, report: ProgressCallback) -> dict[str, Any]:
    """Return the ratio of median widths over test prompts, generated to rendered; None if no object is detected."""
    test_cases = cases("test", per_task)
    generated: list[float] = []
    rendered: list[float] = []
    stopwatch = Stopwatch("images", 0, len(test_cases))
    for done, case in enumerate(test_cases, start=1):
        group = case.group(seed=0, candidates=1)
        (candidates,) = group.generate(generator, [IMAGE], batch_size=1)
        scene = couple(SceneConstraints.from_descriptions([case.description]), noise_batch(group.seeds, 0, NOISE_SHAPE))
        for widths, image in ((generated, candidates.images[0]), (rendered, to_pil(render(scene))[0])):
            widths += edge_widths(image, detect(image))
        report(stopwatch.at(done))
    return {
        "provenance": provenance(generator.device),
        "ratio": float(np.median(generated) / np.median(rendered)) if generated else None,
        "objects_generated": len(generated),
        "objects_rendered": len(rendered),
        "images": len(test_cases),
    }
