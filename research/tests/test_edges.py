"""Edge widths grow with blur and with nothing else."""

import numpy as np
import torch
from PIL import ImageFilter

from forejudge.miniature.detector import detect
from forejudge.miniature.prompts import descriptions
from forejudge.miniature.scenes import NOISE_SHAPE, SceneConstraints, couple, render, to_pil
from research.figures.edges import edge_widths


def test_blurred_objects_have_wider_edges() -> None:
    described = list(descriptions("colors", "test"))
    noise = torch.randn(len(described), *NOISE_SHAPE, generator=torch.Generator().manual_seed(0))
    images = to_pil(render(couple(SceneConstraints.from_descriptions(described), noise)))

    def median(blur: float) -> float:
        blurred = [image.filter(ImageFilter.GaussianBlur(blur)) for image in images]
        widths = [edge_widths(soft, detect(sharp)) for soft, sharp in zip(blurred, images, strict=True)]
        return float(np.median(np.concatenate(widths)))

    assert 0.5 < median(0) < 3
    assert median(0) * 1.3 < median(1.0) < median(1.6)
