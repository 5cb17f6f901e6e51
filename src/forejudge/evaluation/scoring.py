"""A folder of pictures judged by an evaluator, one line of GenEval's results for each, and the scores of it.

A run that was stopped goes on: a picture that was judged by the same evaluator, file and prompt alike, is not judged
again.
"""

import hashlib
import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image, ImageOps

from forejudge.errors import InvalidRequest
from forejudge.evaluation.evaluators import Evaluator
from forejudge.evaluation.geneval_images import GivenPicture, LeftOut, find_pictures
from forejudge.evaluation.picture_results import RESULTS_FILE, Key, PictureResult, read_results
from forejudge.evaluation.task_figures import averages
from forejudge.files import prepare_folder, write_text
from forejudge.journal import Journal
from forejudge.progress import Report, Stopwatch

_BATCH = 8  # pictures that a command is shown at once, and that a kill may lose


@dataclass(frozen=True)
class FolderScore:
    """All results in the order of their names, and what has none."""

    evaluator: str
    results: list[PictureResult]
    left_out: list[LeftOut]

    def summary(self) -> dict[str, Any]:
        """Micro (over pictures) and macro (over tasks) average and the tasks' shares, each with its 95 % interval.

        Raises InvalidRequest where there are no results.
        """
        if not self.results:
            raise InvalidRequest("no picture could be judged")
        tags, prompts = [each.tag for each in self.results], [each.prompt for each in self.results]
        figures, counts = averages(prompts, tags, [each.correct for each in self.results]), Counter(tags)
        return {
            "evaluator": self.evaluator,
            "images": len(self.results),
            "prompts": len({each.metadata for each in self.results}),
            "left_out": sum(each.pictures for each in self.left_out),
            "micro": figures.pop("micro"),
            "macro": figures.pop("macro"),
            "tasks": {task: {"images": counts[task], **figure} for task, figure in figures.items()},
        }


def score_folder(folder: Path, evaluator: Evaluator, report: Report) -> FolderScore:
    """Judge what is not judged yet; `RESULTS_FILE` in the folder then holds a line for each picture, in their order.

    Raises InvalidRequest for a folder that is not in GenEval's layout or that another evaluator has judged, OutputError
    where it cannot be written to, and whatever the evaluator raises.
    """
    given, left_out = find_pictures(folder, evaluator.check)
    prepare_folder(folder)
    path = folder / RESULTS_FILE
    known = {result.key: result for result in read_results(path, evaluator.name)}
    pictures = {_wanted(picture, folder): picture for picture in given}
    left = {key: picture for key, picture in pictures.items() if key not in known}
    journal, stopwatch = Journal(path), Stopwatch("judged", len(pictures) - len(left), len(pictures))
    for batch in _batches(left, left_out):
        for result in _judged(batch, evaluator):
            journal.add(result.model_dump())
            known[result.key] = result
        report(stopwatch.at(len(known.keys() & pictures.keys())))
    results = [known[key] for key in pictures if key in known]
    write_text(path, "".join(f"{result.model_dump_json()}\n" for result in results))
    return FolderScore(evaluator.name, results, left_out)


def _wanted(picture: GivenPicture, folder: Path) -> Key:
    try:
        digest = hashlib.sha256(picture.path.read_bytes()).hexdigest()
    except OSError:
        digest = ""  # whoever opens it will say so
    return picture.path.relative_to(folder).as_posix(), digest, json.dumps(json.loads(picture.line.metadata))


_Opened = tuple[Key, GivenPicture, Image.Image]


def _batches(left: Mapping[Key, GivenPicture], left_out: list[LeftOut]) -> Iterator[list[_Opened]]:
    """Those that can be opened; the others are added to `left_out`."""
    batch: list[_Opened] = []
    for key, picture in left.items():
        try:
            with Image.open(picture.path) as image:
                batch.append((key, picture, ImageOps.exif_transpose(image).convert("RGB")))
        except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            left_out.append(LeftOut(f"{picture.path} cannot be opened ({reason})", 1))
        if len(batch) == _BATCH:
            yield batch
            batch = []
    if batch:
        yield batch


def _judged(batch: Sequence[_Opened], evaluator: Evaluator) -> Iterator[PictureResult]:
    judgements = evaluator([picture.line for _, picture, _ in batch], [image for _, _, image in batch])
    for (key, picture, _), judgement in zip(batch, judgements, strict=True):
        yield PictureResult.of(key, picture.metadata, judgement, evaluator.name)
