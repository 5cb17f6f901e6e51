"""Run as a process of its own: a build in one folder that kills itself again and again, each time further on."""

import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from PIL.Image import Image

from forejudge.evaluators.base import Evaluation, Evaluator
from forejudge.progress import Progress
from forejudge.prompts.prompt_file import PromptLine
from research.miniature.build import Build
from research.miniature.recipe import Recipe, tiny_recipe

MOMENTS = ("generator", "labeling", "verify")


class EvenIsRight(Evaluator):
    """Evaluator that also finds images of an untrained generator correct."""

    name = "even"

    def __call__(self, lines: Sequence[PromptLine], images: Sequence[Image]) -> list[Evaluation]:
        return [Evaluation(image.tobytes()[0] % 2 == 0, "") for image in images]


class DyingEvaluator(EvenIsRight):
    """Evaluator that dies after half of the images."""

    def __call__(self, lines: Sequence[PromptLine], images: Sequence[Image]) -> list[Evaluation]:
        super().__call__(lines[: len(lines) // 2], images[: len(lines) // 2])
        die()
        return []


def die() -> None:
    """End at once, with nothing cleaned up."""
    os.kill(os.getpid(), signal.SIGKILL)


def frequent_checkpoints() -> Recipe:
    """Return the tiny recipe with a checkpoint after every step."""
    values: dict[str, Any] = tiny_recipe().model_dump()
    for settings in (
        values["autoencoder"],
        values["generator"]["shallow"],
        values["generator"]["deep"],
        values["language_model"]["settings"],
    ):
        settings["checkpoint_seconds"] = 1e-9
    return Recipe.model_validate(values)


def build_until_killed(folder: Path, moment: str) -> None:
    """Build until the process kills itself a few steps into a part."""

    def report(progress: Progress) -> None:
        if progress.part == moment and progress.step >= 4:
            die()

    evaluator = DyingEvaluator() if moment == "labeling" else EvenIsRight()
    Build(frequent_checkpoints(), folder, torch.device("cpu"), report, evaluator).run()


def main(folder: str) -> None:
    """Print how each copy ended."""
    for moment in MOMENTS:
        copy = os.fork()
        if copy == 0:
            build_until_killed(Path(folder), moment)
            os._exit(0)
        print(moment, os.waitstatus_to_exitcode(os.waitpid(copy, 0)[1]), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
