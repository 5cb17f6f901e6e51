"""Store of an evaluation: candidates of a benchmark with the verdicts of several verifiers, a block for each prompt."""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from math import isnan
from pathlib import Path
from typing import Annotated, Any, ClassVar

from PIL.Image import Image
from PIL.Image import open as open_image
from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    NonNegativeInt,
    StrictBool,
    TypeAdapter,
    ValidationError,
)
from typing_extensions import TypedDict

from forejudge.candidates.store import SETTINGS_FILE, RowStore
from forejudge.errors import CheckpointError, validation_message
from forejudge.files import write_bytes
from forejudge.options import MAX_PROMPTS, LargeCount, Seed
from forejudge.prompts.geneval import PromptMetadata
from forejudge.prompts.prompt_file import PromptLine


class EvaluationSettings(BaseModel):
    """Configuration that decides the rows of an evaluation.

    `revision`, `benchmark_digest` and the values of `verifiers` identify weights and prompts. `reads` names the stages
    each verifier reads; the names of `second_evaluators` identify their weights. With `second_step` the image after a
    second denoising step is evaluated as well: of every candidate, or with `second_step_below` of those that can win a
    search, by the score of any verifier, with a probability below it.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    model_names: ClassVar = {"generator"}

    generator: str
    revision: str
    dtype: str
    benchmark: str
    benchmark_digest: str
    evaluator: str
    verifiers: dict[str, str]
    reads: dict[str, str]
    prompts: Annotated[int, Field(ge=1, le=MAX_PROMPTS)]
    seeds: LargeCount
    images_per_prompt: LargeCount
    candidates: LargeCount
    steps: LargeCount
    second_evaluators: tuple[str, ...] = ()
    second_step: bool = False
    second_step_below: Annotated[float, Field(gt=0, le=1)] | None = None

    @property
    def digest(self) -> str:
        """12 hexadecimal digits that identify the configuration."""
        return hashlib.sha256(self.model_dump_json(exclude={"generator"}).encode()).hexdigest()[:12]


def _check_score(score: float) -> float:
    if isnan(score):
        raise ValueError("a verdict without a score")
    return score


class RowVerdict(TypedDict):
    """Score of one verifier, and its probability where it is calibrated."""

    score: Annotated[float, AfterValidator(_check_score)]
    probability: Annotated[float, Field(ge=0, le=1)] | None


class EvaluationRow(TypedDict):
    """A candidate of an evaluation with all verdicts; `sample` names its image where that is kept.

    `second_step_correct` says whether its image after a second denoising step is right, and
    `second_step_second_correct` what second evaluators say of it; None where that was not recorded.
    """

    __pydantic_config__ = ConfigDict(extra="allow")  # type: ignore[misc]

    seed_index: NonNegativeInt
    image_index: NonNegativeInt
    index: NonNegativeInt
    seed: Seed
    correct: StrictBool
    second_step_correct: StrictBool | None
    reason: str
    sample: Annotated[str, Field(pattern=r"^\d{4,}\.png$")] | None  # not a path to another file
    verdicts: dict[str, RowVerdict]
    second_correct: dict[str, StrictBool]
    second_step_second_correct: dict[str, StrictBool] | None


NO_SECOND_STEP = {"second_step_correct": None, "second_step_second_correct": None}
"""Columns of a candidate whose second step is not evaluated."""
_ROWS = TypeAdapter(list[EvaluationRow])


class EvaluationStore(RowStore[EvaluationSettings]):
    """Evaluated candidates of a benchmark with the verdicts of several verifiers; each prompt is a block.

    The images of the first seed are kept.
    """

    config_class = EvaluationSettings
    block_name = "prompts"

    @property
    def blocks(self) -> int:
        """See `BlockStore.blocks`."""
        return self.settings.prompts

    def rows_in(self, block: int) -> int:
        """See `RowStore.rows_in`."""
        return self.settings.seeds * self.settings.images_per_prompt * self.settings.candidates

    def write_prompt(
        self, prompt: int, metadata: str, rows: Sequence[Mapping[str, Any]], images: Sequence[Image]
    ) -> None:
        """Write a prompt's images and then its rows. Raises OutputError."""
        self.images(prompt).write(metadata, images)
        self.write(prompt, rows, {})

    def rows(self, prompt: int) -> list[EvaluationRow]:
        """Return the rows of a prompt's candidates. Raises CheckpointError."""
        absent: dict[str, Any] = {"verdicts": {}, "second_correct": {}, **NO_SECOND_STEP}
        rows = [absent | row for row in self.block_table(prompt).to_pylist()]
        with self.damage_named(self.rows_path(prompt), prompt):
            try:
                typed = _ROWS.validate_python(rows)
            except ValidationError as error:
                raise ValueError(f"row {validation_message(error)}") from None
            for row in typed:
                self._check_names("verdicts", row["verdicts"], self.settings.verifiers)
                self._check_names("second_correct", row["second_correct"], self.settings.second_evaluators)
            if len({(row["image_index"], row["seed_index"], row["index"]) for row in typed}) < len(typed):
                raise ValueError("it has a candidate twice")
        return typed

    def _check_names(self, field: str, found: Iterable[str], expected: Iterable[str]) -> None:
        if not set(expected) <= set(found):
            raise ValueError(f"{field} are of {', '.join(found)}, {SETTINGS_FILE} says {', '.join(expected)}")

    def metadata(self, prompt: int) -> PromptMetadata:
        """Return a prompt's metadata, as its rows have it. Raises CheckpointError."""
        return PromptLine("", self._metadata_line(prompt), str(self.rows_path(prompt))).geneval_metadata()

    def _metadata_line(self, prompt: int) -> str:
        line: str = self.block_table(prompt)["metadata"][0].as_py()
        return line

    def sample(self, prompt: int, row: EvaluationRow) -> Path:
        """Return the file of a row's image. Raises CheckpointError where it was not kept."""
        if row["sample"] is None:
            raise CheckpointError(f"{self.rows_path(prompt)}: the image of candidate {row['index']} was not kept")
        path = self.images(prompt).path / "samples" / row["sample"]
        if not path.resolve().is_relative_to(self.path.resolve()):
            raise CheckpointError(
                f"{self.rows_path(prompt)}: the image {row['sample']} is outside the folder, not read"
            )
        return path

    def image(self, prompt: int, row: EvaluationRow) -> Image:
        """Read a row's image. Raises CheckpointError where it was not kept or is damaged."""
        path = self.sample(prompt, row)
        with self.damage_named(path, prompt):
            with open_image(path) as image:
                image.verify()  # by the checksums of PNG, which decoding ignores
            with open_image(path) as image:
                image.load()
        return image

    def merge(self, other: "EvaluationStore") -> int:
        """Copy the prompts of another shard of the same evaluation that are missing here, and return their number.

        Raises InvalidRequest for a shard of another evaluation, CheckpointError for a folder that is none and for
        damaged rows and images. Metadata come from the rows.
        """
        _ = other.settings  # raises where there are none
        other.refuse_other(self.settings)
        new = [prompt for prompt in self.missing if other.has(prompt)]
        for prompt in new:
            images = [other.image(prompt, row) for row in other.rows(prompt) if row["sample"]]
            self.images(prompt).write(other._metadata_line(prompt), images)
            write_bytes(self.checksums_path(prompt), other.checksums_path(prompt).read_bytes())
            write_bytes(self.rows_path(prompt), other.rows_path(prompt).read_bytes())
        return len(new)
