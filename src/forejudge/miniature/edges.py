"""How sharp the generator draws: edges of detected objects beside those of rendered ones, from the same noise."""

from typing import Any

import numpy as np

from forejudge.generators.base import Generator
from forejudge.miniature.coupling import NOISE_SHAPE, Asked, couple
from forejudge.miniature.detector import detect
from forejudge.miniature.scene import render, to_images
from forejudge.miniature.sharpness import edge_widths
from forejudge.miniature.splits import cases
from forejudge.noise import noise_batch
from forejudge.progress import Report, Stopwatch
from forejudge.provenance import provenance
from forejudge.types import IMAGE


def edge_figures(generator: Generator, per_task: int, report: Report) -> dict[str, Any]:
    """Median widths over test prompts, drawn over rendered; the ratio is None where no object is seen."""
    held = cases("test", per_task)
    drawn: list[float] = []
    rendered: list[float] = []
    stopwatch = Stopwatch("pictures", 0, len(held))
    for done, case in enumerate(held, start=1):
        group = case.group(seed=0, candidates=1)
        (candidates,) = group.draw(generator, [IMAGE], batch_size=1)
        scene = couple(Asked.of([case.description]), noise_batch(group.seeds, 0, NOISE_SHAPE))
        for widths, picture in ((drawn, candidates.pictures[0]), (rendered, to_images(render(scene))[0])):
            widths += edge_widths(picture, detect(picture))
        report(stopwatch.at(done))
    return {
        "provenance": provenance(generator.device),
        "ratio": float(np.median(drawn) / np.median(rendered)) if drawn else None,
        "objects_drawn": len(drawn),
        "objects_rendered": len(rendered),
        "pictures": len(held),
    }
