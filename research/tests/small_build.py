"""The whole build on its shrunken recipe, with labels that pictures of an untrained generator can earn, too."""

from pathlib import Path

import torch

from forejudge.evaluators.base import Evaluator
from forejudge.progress import Report, report_nothing
from research.miniature.build import Build
from research.miniature.recipe import Recipe, shrunken
from research.tests.killed_build import EvenIsRight

EVEN = EvenIsRight()


def build(
    folder: Path, recipe: Recipe | None = None, report: Report = report_nothing, evaluator: Evaluator = EVEN
) -> Build:
    return Build(recipe or shrunken(), folder, torch.device("cpu"), report, evaluator)
