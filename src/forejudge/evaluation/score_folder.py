"""Score a folder of images in GenEval's layout: evaluate each image, record it, and average over tasks.

    00000/metadata.jsonl        the prompt's line
    00000/samples/0000.png      an image of it; .jpg and .webp work too

Folders and images have digits for names; of two images with one number, one is evaluated. The results file holds
GenEval's lines, extended by the evaluator. A stopped run resumes: an image is not evaluated again by the same evaluator
if neither its file nor its prompt has changed.
"""

import json
import logging
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps
from pydantic import BaseModel, ConfigDict

from forejudge.checkpoint import first_line
from forejudge.config_files import read_json_lines
from forejudge.digests import file_checksum
from forejudge.errors import CheckpointError, InvalidRequest, OutputError
from forejudge.evaluation.bootstrap import Interval, bootstrap_averages
from forejudge.evaluators.base import Evaluation, Evaluator
from forejudge.evaluators.geneval_rules import keep_detections
from forejudge.files import Journal, is_dir, output_folder, write_text
from forejudge.progress import ProgressCallback, Stopwatch
from forejudge.prompts.geneval import PromptMetadata, Task
from forejudge.prompts.prompt_file import PromptLine, read_lines

_LOGGER = logging.getLogger("forejudge")

RESULTS_FILE = "results.jsonl"
_IMAGE_NAME = re.compile(r"\d+\.(png|jpe?g|webp)", re.IGNORECASE)
_BATCH_SIZE = 8  # images that a command gets at once, and that a kill may lose

Check = Callable[[Sequence[PromptLine]], None]
"""`Evaluator.check`: raises InvalidRequest for a line that cannot be evaluated by."""

Key = tuple[str, str, str]
"""Key of a result: name (relative to the folder) and SHA-256 of the image file, and its metadata as JSON."""


@dataclass(frozen=True)
class ImageFile:
    """Image file with its SHA-256, prompt line and metadata."""

    path: Path
    sha256: str
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
    doubled: tuple[Path, ...]

    @classmethod
    def at(cls, path: Path) -> "_PromptFolder":
        samples = path / "samples"
        files = sorted(samples.iterdir(), key=_image_order) if is_dir(samples) else []
        numbered: dict[int, Path] = {}
        doubled = []
        for each in (each for each in files if _IMAGE_NAME.fullmatch(each.name)):
            if numbered.setdefault(int(each.stem), each) != each:
                doubled.append(each)
        return cls(path, tuple(numbered.values()), tuple(doubled))

    def read(self, check: Check) -> tuple[PromptLine, PromptMetadata]:
        """Read the prompt's line. Raises InvalidRequest naming the file."""
        file = self.path / "metadata.jsonl"
        text = " ".join(read_lines(file, "line of GenEval's metadata").values())
        metadata = PromptLine("", text, str(file)).geneval_metadata()
        line = PromptLine(metadata.prompt, text, str(file))
        check([line])
        return line, metadata


def _image_order(path: Path) -> tuple[str, bool, str]:
    """Sort images by name, and the .png before others of the same number."""
    return path.stem, path.suffix.lower() != ".png", path.suffix


def find_images(folder: Path, check: Check) -> tuple[list[ImageFile], list[LeftOut]]:
    """Find all images, in the order of their names, and what is left out.

    Left out are prompts without usable metadata, images that are there twice, and images and folders that are missing
    where other prompts have them. Raises InvalidRequest for a folder in another layout.
    """
    folders = _prompt_folders(folder)
    each_has = max(len(found.images) for found in folders)
    given: list[ImageFile] = []
    left_out = _missing_folders(folders, each_has)
    seen: dict[tuple[PromptMetadata, str], Path] = {}
    for found in folders:
        left_out += [LeftOut(f"{path} has the number of another image beside it", 1) for path in found.doubled]
        try:
            line, metadata = found.read(check)
        except InvalidRequest as error:
            left_out.append(LeftOut(str(error), len(found.images)))
            continue
        for path in found.images:
            digest = _digest(path)
            before = seen.setdefault((metadata, digest), path)
            if before.parent == path.parent:  # a generator may give equal images, but not to a prompt and its copy
                given.append(ImageFile(path, digest, line, metadata))
            else:
                left_out.append(LeftOut(f"{path} is {before} again, with its prompt, and would count twice", 1))
        left_out += _missing(found, each_has)
    return given, left_out


def _prompt_folders(folder: Path) -> list[_PromptFolder]:
    if not is_dir(folder):
        raise InvalidRequest(f"{folder} is no folder: expected one in GenEval's layout")
    paths = sorted(path for path in folder.iterdir() if is_dir(path) and path.name.isdecimal())
    folders = [_PromptFolder.at(path) for path in paths]
    if not any(found.images for found in folders):
        raise InvalidRequest(
            f"{folder} holds no images in GenEval's layout: expected 00000/metadata.jsonl and 00000/samples/0000.png"
        )
    return folders


def _missing_folders(folders: Sequence[_PromptFolder], each_has: int) -> list[LeftOut]:
    numbers = {int(found.path.name) for found in folders}
    first, last = min(numbers), max(numbers)
    missing = last - first + 1 - len(numbers)
    if not missing:
        return []
    lowest = next(number for number in range(first, last) if number not in numbers)
    parent = folders[0].path.parent
    return [
        LeftOut(f"{parent / f'{lowest:05}'} is missing, one of {missing} folders up to {last:05}", missing * each_has)
    ]


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
class TaskScore(Interval):
    """Accuracy of a task's images in [0, 1] with its 95 % interval."""

    images: int


@dataclass(frozen=True)
class ScoreSummary:
    """Accuracies of a folder with 95 % intervals: over images (micro), over tasks (macro), and of each task."""

    evaluator: str
    images: int
    prompts: int
    left_out: int
    micro: Interval
    macro: Interval
    tasks: dict[Task, TaskScore]


@dataclass(frozen=True)
class FolderScore:
    """Results of all images in the order of their names, and the images left out."""

    evaluator: str
    results: list[ImageResult]
    left_out: list[LeftOut]

    def summary(self) -> ScoreSummary:
        """Return the averages. Raises InvalidRequest without results."""
        if not self.results:
            raise InvalidRequest("no image could be evaluated")
        tags, prompts = [each.tag for each in self.results], [each.prompt for each in self.results]
        averages, counts = bootstrap_averages(prompts, tags, [each.correct for each in self.results]), Counter(tags)
        return ScoreSummary(
            evaluator=self.evaluator,
            images=len(self.results),
            prompts=len({each.metadata for each in self.results}),
            left_out=sum(each.images for each in self.left_out),
            micro=averages.micro,
            macro=averages.macro,
            tasks={
                task: TaskScore(figure.estimate, figure.low, figure.high, counts[task])
                for task, figure in averages.tasks.items()
            },
        )


def score_folder(folder: Path, evaluator: Evaluator, report: ProgressCallback) -> FolderScore:
    """Evaluate every image not evaluated yet; `RESULTS_FILE` in the folder then holds a line per image, in order.

    A folder that cannot be written to is scored too, with a warning; a stopped run then starts again. Raises
    InvalidRequest for a folder that is not in GenEval's layout or was scored by another evaluator, OutputError where
    the disk is full, and the evaluator's own errors.
    """
    given, left_out = find_images(folder, evaluator.check)
    path = folder / RESULTS_FILE
    with _held(folder) as can_write:
        known = {result.key: result for result in read_results(path, evaluator.name)}
        images = {_key(image, folder): image for image in given}
        left = {key: image for key, image in images.items() if key not in known}
        journal, stopwatch = (
            Journal(path) if can_write else None,
            Stopwatch("evaluated", len(images) - len(left), len(images)),
        )
        for batch in _batches(left, left_out):
            for result in _evaluate(batch, evaluator):
                if journal:
                    journal.add(result.model_dump())
                known[result.key] = result
            report(stopwatch.at(len(known.keys() & images.keys())))
        results = [known[key] for key in images if key in known]
        if journal:
            write_text(path, "".join(f"{result.model_dump_json()}\n" for result in results))
        return FolderScore(evaluator.name, results, left_out)


@contextmanager
def _held(folder: Path) -> Iterator[bool]:
    """Hold a folder, and yield whether it can be written to. Raises InvalidRequest where another process holds it."""
    with ExitStack() as held:
        can_write = True
        try:
            held.enter_context(output_folder(folder))
        except OutputError as error:
            _LOGGER.warning(f"results are shown and not kept: {error}")
            can_write = False
        yield can_write


def _key(image: ImageFile, folder: Path) -> Key:
    metadata = json.dumps(json.loads(image.line.metadata))
    return image.path.relative_to(folder).as_posix(), image.sha256, metadata


def _digest(path: Path) -> str:
    """Return the SHA-256 of a file; the path itself where it cannot be read, as opening it reports the error."""
    try:
        return file_checksum(path)
    except CheckpointError:
        return str(path)


_Opened = tuple[Key, ImageFile, Image.Image]


def _batches(left: Mapping[Key, ImageFile], left_out: list[LeftOut]) -> Iterator[list[_Opened]]:
    """Yield the images that can be opened in batches; the others are added to `left_out`."""
    batch: list[_Opened] = []
    for key, image_file in left.items():
        try:
            batch.append((key, image_file, open_image(image_file.path)))
        except CheckpointError as error:
            left_out.append(LeftOut(str(error), 1))
        if len(batch) == _BATCH_SIZE:
            yield batch
            batch = []
    if batch:
        yield batch


def open_image(path: Path) -> Image.Image:
    """Read an image of any mode as RGB, turned as its EXIF data say. Raises CheckpointError for one that is damaged.

    Of 16 bits the upper 8 are kept, as OpenCV does for GenEval's detector.
    """
    try:
        with Image.open(path) as image:
            turned = ImageOps.exif_transpose(image)
            if turned.mode.startswith("I"):
                turned = Image.fromarray((np.asarray(turned) >> 8).astype(np.uint8))
            return turned.convert("RGB")
    except Exception as error:  # Pillow's decoders raise many types
        raise CheckpointError(f"{path} cannot be opened ({first_line(error)})") from None


def _evaluate(batch: Sequence[_Opened], evaluator: Evaluator) -> Iterator[ImageResult]:
    evaluations = evaluator([image_file.line for _, image_file, _ in batch], [image for _, _, image in batch])
    for (key, image_file, _), evaluation in zip(batch, evaluations, strict=True):
        yield ImageResult.of(key, image_file.metadata, evaluation, evaluator.name)
