"""Candidates of some prompts as thumbnails, with the verdicts of the first verifier and the evaluator."""

from base64 import b64encode
from collections.abc import Sequence
from dataclasses import dataclass
from io import BytesIO

from PIL import Image

from forejudge.candidates.evaluation_store import EvaluationRow, EvaluationStore, RowVerdict
from forejudge.prompts.geneval import TASKS, PromptMetadata
from forejudge.report.tables import TASK_NAMES
from forejudge.types import PASS_THRESHOLD

PROMPTS_PER_TASK = 2
_MAX_SIDE = 192  # pixels of a thumbnail's longer side, at most


@dataclass(frozen=True)
class Thumbnail:
    """A candidate: its image as a data URI, the verdicts of verifier and evaluator, and whether the two disagree.

    `disagrees` is False for a verifier without probabilities.
    """

    image: str
    verdict: str
    correct: bool
    reason: str
    winner: bool
    disagrees: bool


@dataclass(frozen=True)
class GalleryPrompt:
    """A prompt with the candidates of its first image and first seed, in the order they were generated."""

    prompt: str
    task: str
    thumbnails: Sequence[Thumbnail]


@dataclass(frozen=True)
class _Prompt:
    number: int
    metadata: PromptMetadata
    rows: Sequence[EvaluationRow]
    verifier: str

    @property
    def winner(self) -> int:
        """Index of the verifier's choice; ties go to the earlier candidate."""
        scores = [row["verdicts"][self.verifier]["score"] for row in self.rows]
        return scores.index(max(scores))

    def disagrees(self, row: EvaluationRow) -> bool:
        probability = row["verdicts"][self.verifier]["probability"]
        return probability is not None and (probability >= PASS_THRESHOLD) != row["correct"]

    @property
    def sort_key(self) -> tuple[bool, int, int]:
        """Key that puts missed right candidates first, then the most disagreements."""
        missed = not self.rows[self.winner]["correct"] and any(row["correct"] for row in self.rows)
        return not missed, -sum(map(self.disagrees, self.rows)), self.number


def gallery(folder: EvaluationStore) -> list[GalleryPrompt]:
    """Select up to two prompts of each task, preferring those on which verifier and evaluator disagree.

    The selection is deterministic. Raises CheckpointError for an image that is missing or can't be read.
    """
    verifier = next(iter(folder.settings.verifiers))
    prompts = [_prompt(folder, number, verifier) for number in range(folder.settings.prompts)]
    selected = [
        prompt
        for task in TASKS
        for prompt in sorted((each for each in prompts if each.metadata.tag == task), key=lambda each: each.sort_key)[
            :PROMPTS_PER_TASK
        ]
    ]
    return [_gallery_prompt(folder, prompt) for prompt in selected]


def _prompt(folder: EvaluationStore, number: int, verifier: str) -> _Prompt:
    all_rows = folder.rows(number)
    first = min(row["image_index"] for row in all_rows)  # above 0 where an earlier line has the same prompt
    rows = [row for row in all_rows if row["seed_index"] == 0 and row["image_index"] == first]
    return _Prompt(number, folder.metadata(number), sorted(rows, key=lambda row: row["index"]), verifier)


def _gallery_prompt(folder: EvaluationStore, prompt: _Prompt) -> GalleryPrompt:
    thumbnails = [
        Thumbnail(
            image=_thumbnail(folder.image(prompt.number, row)),
            verdict=_verdict(row["verdicts"][prompt.verifier]),
            correct=row["correct"],
            reason=row["reason"],
            winner=index == prompt.winner,
            disagrees=prompt.disagrees(row),
        )
        for index, row in enumerate(prompt.rows)
    ]
    return GalleryPrompt(prompt.metadata.prompt, TASK_NAMES[prompt.metadata.tag], thumbnails)


def _verdict(verdict: RowVerdict) -> str:
    probability = verdict["probability"]
    return f"score {verdict['score']:.3g}" if probability is None else f"{100 * probability:.0f} %"


def _thumbnail(image: Image.Image) -> str:
    resized = image.convert("RGB")
    resized.thumbnail((_MAX_SIDE, _MAX_SIDE), Image.Resampling.LANCZOS)
    buffer = BytesIO()
    resized.save(buffer, "WEBP", quality=85)
    return data_uri("image/webp", buffer.getvalue())


def data_uri(media_type: str, content: bytes) -> str:
    """Encode content as a data URI."""
    return f"data:{media_type};base64,{b64encode(content).decode()}"
