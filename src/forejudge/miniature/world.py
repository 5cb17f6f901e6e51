"""The world to look at: a sheet of rendered scenes, and its test prompts as GenEval metadata lines."""

from pathlib import Path

import torch
from PIL import Image

from forejudge.evaluation.metadata import TASKS
from forejudge.miniature.coupling import NOISE_SHAPE, Asked, couple
from forejudge.miniature.scene import render
from forejudge.miniature.splits import cases, descriptions
from forejudge.miniature.training_loop import generator_at

_COLUMNS = 12


def write_world(folder: Path) -> None:
    """Write scenes.png, a row of scenes for each task, and test_prompts.jsonl."""
    folder.mkdir(parents=True, exist_ok=True)
    world_sheet().save(folder / "scenes.png")
    prompts = {case.description.prompt: case.description for case in cases("test")}
    lines = [description.metadata.to_line() for description in prompts.values()]
    (folder / "test_prompts.jsonl").write_text("\n".join(lines) + "\n")


def world_sheet() -> Image.Image:
    """Scenes of every task as the renderer draws them, twice enlarged."""
    described = [item for task in TASKS for item in descriptions(task, "test")[:_COLUMNS]]
    noise = torch.randn(len(described), *NOISE_SHAPE, generator=generator_at(0, 0))
    scenes_N3HW = render(couple(Asked.of(described), noise))
    rows = scenes_N3HW.unflatten(0, (len(TASKS), _COLUMNS)).permute(0, 3, 1, 4, 2)
    height, width = rows.shape[0] * rows.shape[1], rows.shape[2] * rows.shape[3]
    sheet = Image.fromarray((rows.reshape(height, width, 3) * 255).round().byte().numpy())
    return sheet.resize((2 * width, 2 * height), Image.Resampling.NEAREST)
