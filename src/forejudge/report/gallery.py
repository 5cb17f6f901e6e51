"""Candidates of some prompts as thumbnails, with what the first verifier and the evaluator say of each."""

from base64 import b64encode
from collections.abc import Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

from PIL import Image

from forejudge.candidates.store import EvaluationFolder
from forejudge.checkpoint import named_file
from forejudge.prompts.geneval import TASKS, PromptMetadata
from forejudge.report.tables import TASK_NAMES
from forejudge.search import PASSES

PROMPTS_OF_A_TASK = 2
_SIDE = 192  # the most pixels of a thumbnail's side


@dataclass(frozen=True)
class Thumbnail:
    """A candidate: its picture as a data URI, the verifier's verdict, the evaluator's, and whether the two disagree.

    `disagrees` is False for a verifier without probabilities, which says neither yes nor no.
    """

    picture: str
    verdict: str
    correct: bool
    reason: str
    winner: bool
    disagrees: bool


@dataclass(frozen=True)
class Shown:
    """A prompt with the candidates of its first image and first seed, in the order in which they were drawn."""

    prompt: str
    task: str
    thumbnails: Sequence[Thumbnail]


@dataclass(frozen=True)
class _Prompt:
    number: int
    metadata: PromptMetadata
    rows: Sequence[dict[str, Any]]
    verifier: str

    @property
    def winner(self) -> int:
        """Whom the verifier chooses; of equals, the first."""
        scores = [row["verdicts"][self.verifier]["score"] for row in self.rows]
        return scores.index(max(scores))

    def disagrees(self, row: dict[str, Any]) -> bool:
        probability = row["verdicts"][self.verifier]["probability"]
        return probability is not None and (probability >= PASSES) != row["correct"]

    @property
    def order(self) -> tuple[bool, int, int]:
        """First where a wrong one was chosen though a right one was there, then where the two disagree most."""
        missed = not self.rows[self.winner]["correct"] and any(row["correct"] for row in self.rows)
        return not missed, -sum(map(self.disagrees, self.rows)), self.number


def gallery(folder: EvaluationFolder) -> list[Shown]:
    """Up to two prompts of each task, those first on which verifier and evaluator disagree; always the same.

    Raises CheckpointError for a picture that is missing or cannot be read.
    """
    verifier = next(iter(folder.settings.verifiers))
    prompts = [_prompt(folder, number, verifier) for number in range(folder.settings.prompts)]
    chosen = [
        prompt
        for task in TASKS
        for prompt in sorted((each for each in prompts if each.metadata.tag == task), key=lambda each: each.order)[
            :PROMPTS_OF_A_TASK
        ]
    ]
    return [_shown(folder, prompt) for prompt in chosen]


def _prompt(folder: EvaluationFolder, number: int, verifier: str) -> _Prompt:
    every = folder.rows(number)
    first = min(row["image_index"] for row in every)  # not 0 where the prompt came before
    rows = [row for row in every if row["seed"] == 0 and row["image_index"] == first]
    metadata = PromptMetadata.from_line(folder.metadata(number))
    return _Prompt(number, metadata, sorted(rows, key=lambda row: row["index"]), verifier)


def _shown(folder: EvaluationFolder, prompt: _Prompt) -> Shown:
    thumbnails = [
        Thumbnail(
            picture=_thumbnail(folder.sample(prompt.number, row["sample"])),
            verdict=_verdict(row["verdicts"][prompt.verifier]),
            correct=row["correct"],
            reason=row["reason"],
            winner=at == prompt.winner,
            disagrees=prompt.disagrees(row),
        )
        for at, row in enumerate(prompt.rows)
    ]
    return Shown(prompt.metadata.prompt, TASK_NAMES[prompt.metadata.tag], thumbnails)


def _verdict(said: dict[str, Any]) -> str:
    probability = said["probability"]
    return f"score {said['score']:.3g}" if probability is None else f"{100 * probability:.0f} %"


def _thumbnail(path: Path) -> str:
    with named_file(path), Image.open(path) as picture:
        small = picture.convert("RGB")
    small.thumbnail((_SIDE, _SIDE), Image.Resampling.LANCZOS)
    buffer = BytesIO()
    small.save(buffer, "WEBP", quality=85)
    return data_uri("image/webp", buffer.getvalue())


def data_uri(kind: str, content: bytes) -> str:
    """Content as part of the page."""
    return f"data:{kind};base64,{b64encode(content).decode()}"
