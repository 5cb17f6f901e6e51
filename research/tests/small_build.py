"""The whole build on its tiny recipe, with an evaluator that also finds images of an untrained generator correct."""

from pathlib import Path

import torch

from forejudge.evaluators.base import Evaluator
from forejudge.progress import ProgressCallback, ignore_progress
from research.miniature.build import Build
from research.miniature.recipe import Recipe, tiny_recipe
from research.tests.killed_build import EvenIsRight

EVEN = EvenIsRight()


def build(
    folder: Path, recipe: Recipe | None = None, report: ProgressCallback = ignore_progress, evaluator: Evaluator = EVEN
) -> Build:
    return Build(recipe or tiny_recipe(), folder, torch.device("cpu"), report, evaluator)
