"""Held-out scenes with their ground truth, and single objects, for the miniature's tests."""

from dataclasses import dataclass
from itertools import islice

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from forejudge.evaluators.geneval_rules import Detection
from forejudge.miniature.prompts import cases
from forejudge.miniature.scenes import (
    COLOR_NAMES,
    KINDS,
    NOISE_SHAPE,
    SceneBatch,
    SceneConstraints,
    couple,
    coverage,
    render,
)
from forejudge.prompts.geneval import TASKS, Description

Images = NDArray[np.uint8]


@dataclass(frozen=True)
class RenderedScenes:
    """Descriptions, their scenes, and the scenes' images, (N, 64, 64, 3) in [0, 1]."""

    descriptions: list[Description]
    scenes: SceneBatch
    images: NDArray[np.float32]

    def ground_truth(self) -> list[list[Detection]]:
        """Return the detections of a perfect detector for each image."""
        slots = range(self.scenes.kind_NK.shape[1])
        masks = [coverage(self.scenes, slot).numpy() > 0.5 for slot in slots]
        return [
            [self._detection(row, slot, masks[slot][row]) for slot in slots if self.scenes.present_NK[row, slot]]
            for row in range(len(self.images))
        ]

    def _detection(self, row: int, slot: int, mask: NDArray[np.bool_]) -> Detection:
        x, y, width, height = cv2.boundingRect(mask.astype(np.uint8))
        kind = KINDS[int(self.scenes.kind_NK[row, slot])]
        color = COLOR_NAMES[int(self.scenes.color_NK[row, slot])]
        return Detection(kind, (x, y, x + width, y + height), 1.0, color, mask)


def noise(count: int, seed: int) -> torch.Tensor:
    return torch.randn(count, *NOISE_SHAPE, generator=torch.Generator().manual_seed(seed))


def render_scenes(descriptions: list[Description], seed: int) -> RenderedScenes:
    scenes = couple(SceneConstraints.from_descriptions(descriptions), noise(len(descriptions), seed))
    return RenderedScenes(descriptions, scenes, render(scenes).permute(0, 2, 3, 1).numpy())


def held_out(count: int, seed: int = 0) -> RenderedScenes:
    """Scenes of the test split, equally many of each task."""
    per_task = -(-count // len(TASKS))
    every = (case.description for case in cases("test", per_task))
    return render_scenes(list(islice(every, count)), seed)


def single(
    kind: str, color: str = "blue", background: float = 0.55, radius: float = 9.0, x: float = 32.0
) -> RenderedScenes:
    """One object on the middle line of its image."""
    scenes = SceneBatch(
        kind_NK=torch.tensor([[KINDS.index(kind)]]),
        color_NK=torch.tensor([[COLOR_NAMES.index(color)]]),
        center_NK2=torch.tensor([[[x, 32.0]]]),
        radius_NK=torch.tensor([[radius]]),
        present_NK=torch.tensor([[True]]),
        background_N=torch.tensor([background]),
    )
    return RenderedScenes([], scenes, render(scenes).permute(0, 2, 3, 1).numpy())


def to_uint8(images: NDArray[np.floating]) -> Images:
    return (np.clip(images, 0, 1) * 255).round().astype(np.uint8)
