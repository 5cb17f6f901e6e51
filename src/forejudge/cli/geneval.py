"""`forejudge geneval`: convert its detector and score a folder of images."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from typer import Argument

from forejudge.cli import options
from forejudge.cli.common import echo
from forejudge.cli.progress import spinner
from forejudge.files import is_file

if TYPE_CHECKING:
    from forejudge.evaluation.score_folder import FolderScore
    from forejudge.evaluators.base import Evaluator


group = typer.Typer(help="Convert GenEval's detector, score a folder of images.")


@group.command("convert-detector")
def convert(
    weights: Annotated[Path, Argument(help="mmdetection's Mask2Former, the .pth file that GenEval uses.")],
    folder: Annotated[Path, Argument(help="Folder to write, for --detector.")],
) -> None:
    """Convert GenEval's detector from mmdetection's weights, once; mmdetection itself is not needed."""
    with spinner("converting"):
        from forejudge.evaluators.mmdet_conversion import convert_detector

        origin = convert_detector(weights, folder)
    echo(f"written to {folder}")
    if not origin.is_genevals:
        echo(f"{weights} is not the file that GenEval uses: scores with it are not comparable", err=True)


@group.command()
def score(
    folder: Annotated[Path, Argument(help="Images in GenEval's layout, as `forejudge generate --prompts` writes.")],
    evaluator: options.Evaluator = "geneval",
    detector: options.Detector = None,
    color_model: options.ColorModel = None,
    device: options.Device = None,
    as_json: options.AsJson = False,
) -> None:
    """Evaluate every image of a folder and print the scores; results.jsonl in the folder has a line per image.

    A stopped run resumes. If images cannot be evaluated, they are named, the rest is scored, and the status is 1.
    """
    with spinner("loading"):
        from forejudge.evaluators.loading import GenEvalModels, load_evaluator

        loaded_evaluator = load_evaluator(evaluator, GenEvalModels(detector, color_model, device))
    folder_score = _score(folder, loaded_evaluator)
    for left_out in folder_score.left_out:
        echo(f"left out: {left_out.reason}", err=True)
    _show(folder_score, folder, as_json)
    if folder_score.left_out:
        raise typer.Exit(1)


def _score(folder: Path, loaded_evaluator: "Evaluator") -> "FolderScore":
    from forejudge.cli.progress import StageProgress
    from forejudge.evaluation.score_folder import score_folder

    try:
        with StageProgress() as progress:
            return score_folder(folder, loaded_evaluator, progress.show)
    except KeyboardInterrupt:
        raise KeyboardInterrupt("the same command continues with the images not evaluated yet") from None


def _show(folder_score: "FolderScore", folder: Path, as_json: bool) -> None:
    from forejudge.cli.tables import print_scores
    from forejudge.evaluation.score_folder import RESULTS_FILE

    summary = folder_score.summary()
    if as_json:
        echo(json.dumps(asdict(summary), indent=2))
        return
    print_scores(summary)
    echo(f"{summary.images} images of {summary.prompts} prompts, evaluated by {summary.evaluator}")
    if summary.left_out:
        echo(f"images left out: {summary.left_out}")
    if is_file(folder / RESULTS_FILE):
        echo(f"results of each image: {folder / RESULTS_FILE}")
