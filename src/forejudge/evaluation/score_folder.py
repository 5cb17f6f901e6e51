"""Score a folder of images in GenEval's layout: evaluate each image, record it, and average over tasks.

    00000/metadata.jsonl        the prompt's line
    00000/samples/0000.png      an image of it; .jpg works too

Folders and images have digits for names. The results file holds GenEval's lines, extended by the evaluator. A stopped
run resumes: an image is not evaluated again by the same evaluator if neither its file nor its prompt has changed.
"""

import hashlib
import json
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from PIL import Image, ImageOps
from pydantic import BaseModel, ConfigDict

from forejudge.config_files import read_json_lines
from forejudge.errors import InvalidRequest
from forejudge.evaluation.bootstrap import bootstrap_averages
from forejudge.evaluators.base import Evaluation, Evaluator
from forejudge.evaluators.geneval_rules import keep_detections
from forejudge.files import Journal, is_dir, is_file, prepare_folder, write_text
from forejudge.progress import ProgressCallback, Stopwatch
from forejudge.prompts.geneval import PromptMetadata
from forejudge.prompts.prompt_file import PromptLine, read_lines

RESULTS_FILE = "results.jsonl"
_IMAGE_NAME = re.compile(r"\d+\.(png|jpe?g)")
_BATCH_SIZE = 8  # images that a command gets at once, and that a kill may lose

Check = Callable[[Sequence[PromptLine]], None]
"""`Evaluator.check`: raises InvalidRequest for a line that cannot be evaluated by."""

Key = tuple[str, str, str]
"""Key of a result: name (relative to the folder) and SHA-256 of the image file, and its metadata as JSON."""


@dataclass(frozen=True)
class ImageFile:
    """Image file with its prompt line and metadata."""

    path: Path
    line: PromptLine
    metadata: PromptMetadata


@dataclass(frozen=True)
class LeftOut:
    """Number of images that are not evaluated; `reason` is one line that names a path."""

    reason: str
    images: int


@dataclass(frozen=True)
class _PromptFolder:
    path: Path
    images: tuple[Path, ...]

    @classmethod
    def at(cls, path: Path) -> "_PromptFolder":
        samples = path / "samples"
        files = sorted(samples.iterdir()) if is_dir(samples) else []
        return cls(path, tuple(each for each in files if _IMAGE_NAME.fullmatch(each.name) and is_file(each)))

    def read(self, check: Check) -> tuple[PromptLine, PromptMetadata]:
        """Read the prompt's line. Raises InvalidRequest naming the file."""
        file = self.path / "metadata.jsonl"
        text = " ".join(read_lines(file, "line of GenEval's metadata").values())
        metadata = PromptLine("", text, str(file)).geneval_metadata()
        line = PromptLine(metadata.prompt, text, str(file))
        check([line])
        return line, metadata


def find_images(folder: Path, check: Check) -> tuple[list[ImageFile], list[LeftOut]]:
    """Find all images, in the order of their names, and what is left out.

    Left out are prompts without usable metadata, repeated prompts, and images that are missing where other prompts
    have more. Raises InvalidRequest for a folder in another layout.
    """
    folders = _prompt_folders(folder)
    each_has = max(len(found.images) for found in folders)
    given: list[ImageFile] = []
    left_out: list[LeftOut] = []
    seen: dict[PromptMetadata, Path] = {}
    for found in folders:
        try:
            line, metadata = found.read(check)
            _refuse_doubled(found.path, metadata, seen)
        except InvalidRequest as error:
            left_out.append(LeftOut(str(error), len(found.images)))
            continue
        given += [ImageFile(path, line, metadata) for path in found.images]
        left_out += _missing(found, each_has)
    return given, left_out


def _prompt_folders(folder: Path) -> list[_PromptFolder]:
    if not is_dir(folder):
        raise InvalidRequest(f"{folder} is no folder: expected one in GenEval's layout")
    paths = sorted(path for path in folder.iterdir() if is_dir(path) and path.name.isdigit())
    folders = [_PromptFolder.at(path) for path in paths]
    if not any(found.images for found in folders):
        raise InvalidRequest(
            f"{folder} holds no images in GenEval's layout: expected 00000/metadata.jsonl and 00000/samples/0000.png"
        )
    return folders


def _refuse_doubled(path: Path, metadata: PromptMetadata, seen: dict[PromptMetadata, Path]) -> None:
    before = seen.setdefault(metadata, path)
    if before != path:
        raise InvalidRequest(f"{path} has the prompt of {before}, which would count twice")


def _missing(found: _PromptFolder, each_has: int) -> list[LeftOut]:
    missing = each_has - len(found.images)
    if not missing:
        return []
    reason = f"{found.path / 'samples'} holds {len(found.images)} of {each_has} images, as many as other prompts have"
    return [LeftOut(reason, missing)]


class ImageResult(BaseModel):
    """A line of GenEval's results, extended by the evaluator and the SHA-256 of the image file.

    `filename` is relative to the folder; `metadata` and `details`, boxes and confidences by class, are JSON texts.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    filename: str
    tag: str
    prompt: str
    correct: bool
    reason: str
    metadata: str
    details: str
    evaluator: str
    sha256: str

    @classmethod
    def of(cls, key: Key, metadata: PromptMetadata, evaluation: Evaluation, evaluator: str) -> "ImageResult":
        """Build a result; its details are the detections that GenEval's rules keep."""
        kept = keep_detections(evaluation.detections, metadata)
        details = {name: [[*found.box, found.confidence] for found in each] for name, each in kept.items()}
        filename, sha256, text = key
        return cls(
            filename=filename,
            tag=metadata.tag,
            prompt=metadata.prompt,
            correct=evaluation.correct,
            reason=evaluation.reason,
            metadata=text,
            details=json.dumps(details),
            evaluator=evaluator,
            sha256=sha256,
        )

    @property
    def key(self) -> Key:
        """Key that identifies the image and its prompt."""
        return self.filename, self.sha256, self.metadata


def read_results(path: Path, evaluator: str) -> list[ImageResult]:
    """Read the recorded results; a torn last line is left out.

    Raises InvalidRequest for a file of another evaluator, CheckpointError for one of another program.
    """
    results = read_json_lines(path, ImageResult)
    for result in results:
        if result.evaluator != evaluator:
            raise InvalidRequest(
                f"{path} holds results of {result.evaluator}, this is {evaluator}: rename the file to keep it, or "
                "use the same evaluator"
            )
    return results


@dataclass(frozen=True)
class FolderScore:
    """Results of all images in the order of their names, and the images left out."""

    evaluator: str
    results: list[ImageResult]
    left_out: list[LeftOut]

    def summary(self) -> dict[str, Any]:
        """Return micro (over images) and macro (over tasks) average and each task's accuracy, with 95 % intervals.

        Raises InvalidRequest without results.
        """
        if not self.results:
            raise InvalidRequest("no image could be evaluated")
        tags, prompts = [each.tag for each in self.results], [each.prompt for each in self.results]
        averages, counts = bootstrap_averages(prompts, tags, [each.correct for each in self.results]), Counter(tags)
        return {
            "evaluator": self.evaluator,
            "images": len(self.results),
            "prompts": len({each.metadata for each in self.results}),
            "left_out": sum(each.images for each in self.left_out),
            "micro": asdict(averages.micro),
            "macro": asdict(averages.macro),
            "tasks": {task: {"images": counts[task], **asdict(figure)} for task, figure in averages.tasks.items()},
        }


def score_folder(folder: Path, evaluator: Evaluator, report: ProgressCallback) -> FolderScore:
    """Evaluate every image not evaluated yet; `RESULTS_FILE` in the folder then holds a line per image, in order.

    Raises InvalidRequest for a folder that is not in GenEval's layout or was scored by another evaluator, OutputError
    where it cannot be written to, and the evaluator's own errors.
    """
    given, left_out = find_images(folder, evaluator.check)
    prepare_folder(folder)
    path = folder / RESULTS_FILE
    known = {result.key: result for result in read_results(path, evaluator.name)}
    images = {_key(image, folder): image for image in given}
    left = {key: image for key, image in images.items() if key not in known}
    journal, stopwatch = Journal(path), Stopwatch("evaluated", len(images) - len(left), len(images))
    for batch in _batches(left, left_out):
        for result in _evaluate(batch, evaluator):
            journal.add(result.model_dump())
            known[result.key] = result
        report(stopwatch.at(len(known.keys() & images.keys())))
    results = [known[key] for key in images if key in known]
    write_text(path, "".join(f"{result.model_dump_json()}\n" for result in results))
    return FolderScore(evaluator.name, results, left_out)


def _key(image: ImageFile, folder: Path) -> Key:
    try:
        digest = hashlib.sha256(image.path.read_bytes()).hexdigest()
    except OSError:
        digest = ""  # opening it reports the error
    return image.path.relative_to(folder).as_posix(), digest, json.dumps(json.loads(image.line.metadata))


_Opened = tuple[Key, ImageFile, Image.Image]


def _batches(left: Mapping[Key, ImageFile], left_out: list[LeftOut]) -> Iterator[list[_Opened]]:
    """Yield the images that can be opened in batches; the others are added to `left_out`."""
    batch: list[_Opened] = []
    for key, image_file in left.items():
        try:
            with Image.open(image_file.path) as image:
                batch.append((key, image_file, ImageOps.exif_transpose(image).convert("RGB")))
        except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            left_out.append(LeftOut(f"{image_file.path} cannot be opened ({reason})", 1))
        if len(batch) == _BATCH_SIZE:
            yield batch
            batch = []
    if batch:
        yield batch


def _evaluate(batch: Sequence[_Opened], evaluator: Evaluator) -> Iterator[ImageResult]:
    evaluations = evaluator([image_file.line for _, image_file, _ in batch], [image for _, _, image in batch])
    for (key, image_file, _), evaluation in zip(batch, evaluations, strict=True):
        yield ImageResult.of(key, image_file.metadata, evaluation, evaluator.name)
