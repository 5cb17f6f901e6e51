"""The whole build on its shrunken recipe, with labels that pictures of an untrained generator can earn, too."""

from pathlib import Path

import torch
from tests.miniature.killed_build import EvenIsRight

from forejudge.evaluation.evaluators import Evaluator
from forejudge.miniature.build import Build
from forejudge.miniature.recipe import Recipe, shrunken
from forejudge.progress import Report, report_nothing

EVEN = EvenIsRight()


def build(
    folder: Path, recipe: Recipe | None = None, report: Report = report_nothing, evaluator: Evaluator = EVEN
) -> Build:
    return Build(recipe or shrunken(), folder, torch.device("cpu"), report, evaluator)
