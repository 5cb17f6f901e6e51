"""Candidates of many prompts drawn to the end, shown to an observer and kept, block by block."""

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Protocol

import pyarrow as pa
import torch
from PIL.Image import Image
from pydantic import BaseModel, ConfigDict
from torch import Tensor

from forejudge.candidates.features import half
from forejudge.candidates.store import CandidateStore, CollectionConfig, EvaluationFolder, EvaluationSettings
from forejudge.device import dtype_name
from forejudge.evaluators.base import Captioner, Evaluation, Evaluator, ReportedDetection
from forejudge.evaluators.benchmarks import Benchmark
from forejudge.files import check_room, exclusive_lock, write_shared_text
from forejudge.generators.base import Generator, SamplingParams
from forejudge.hub import public_model_name
from forejudge.progress import ProgressCallback, Shard, Stopwatch
from forejudge.prompts.prompt_file import Group, PromptLine, check_lines, groups_of, prompts_digest
from forejudge.types import IMAGE, Candidates
from forejudge.verifiers.base import Verifier
from forejudge.verifiers.inputs import VerifierInput

# FOLDED: Drawing and judging a benchmark: every candidate is finished, shown to all verifiers and to every evaluator.


_ONE_STEP = SamplingParams()


@dataclass(frozen=True)
class EvaluationRun:
    """What is drawn, and who says what of it. All verifiers see the same `candidates` of each image.

    The benchmark's evaluator decides what is right; `second_evaluators`, by name, say it too.
    """

    generator: Generator
    verifiers: Mapping[str, Verifier]
    benchmark: Benchmark
    candidates: int
    images_per_prompt: int = 1
    seeds: int = 1
    sampling: SamplingParams = _ONE_STEP
    batch_size: int = 16
    second_evaluators: Mapping[str, Evaluator] = field(default_factory=dict)

    @cached_property
    def settings(self) -> EvaluationSettings:
        """What decides the rows."""
        return EvaluationSettings(
            generator=self.generator.name,
            revision=self.generator.fingerprint,
            dtype=dtype_name(self.generator.dtype),
            benchmark=self.benchmark.name,
            benchmark_digest=self.benchmark.digest,
            evaluator=self.benchmark.evaluator.name,
            verifiers={name: verifier.digest for name, verifier in self.verifiers.items()},
            reads={name: ", ".join(map(str, sorted(each.reads))) for name, each in self.verifiers.items()},
            prompts=len(self.benchmark.lines),
            seeds=self.seeds,
            images_per_prompt=self.images_per_prompt,
            candidates=self.candidates,
            steps=self.sampling.steps,
            second_evaluators=tuple(self.second_evaluators),
        )

    def run(self, folder: EvaluationFolder, shard: Shard, report: ProgressCallback) -> None:
        """Draw the shard's prompts that are not in the folder yet; a kill loses the one in flight.

        Raises InvalidRequest where the folder was begun with other settings, OutputError where it cannot be written,
        and whatever the evaluator raises.
        """
        folder.begin(self.settings)
        mine = list(shard.indices(self.settings.prompts))
        left = [prompt for prompt in mine if not folder.has(prompt)]
        stopwatch = Stopwatch("evaluation", len(mine) - len(left), len(mine))
        with exclusive_lock(folder.path / f".{shard.number}-of-{shard.count}.lock"):
            for done, prompt in enumerate(left, start=len(mine) - len(left) + 1):
                self._draw(prompt, folder)
                report(stopwatch.at(done, "prompts"))

    def _draw(self, prompt: int, folder: EvaluationFolder) -> None:
        line, rows = self.benchmark.lines[prompt], self._rows(prompt)
        # All pictures of the prompt as one group: few candidates each would be drawn in small batches.
        images, said = self._drawn(Group(line, 0, tuple(row["candidate_seed"] for row in rows)))
        lines = [line] * len(images)
        evaluations = self.benchmark.evaluator(lines, images)
        also = {name: judge(lines, images) for name, judge in self.second_evaluators.items()}
        for at, (row, evaluation, verdicts) in enumerate(zip(rows, evaluations, said, strict=True)):
            row |= {"correct": evaluation.correct, "reason": evaluation.reason, "verdicts": verdicts}
            row["second_correct"] = {name: judged[at].correct for name, judged in also.items()}
        folder.write(prompt, line.metadata, rows, [images[at] for at, row in enumerate(rows) if row["sample"]])

    def _rows(self, prompt: int) -> list[dict[str, Any]]:
        """What is known of each candidate before it is drawn; pictures of the first seed are kept as samples."""
        rows: list[dict[str, Any]] = []
        for seed, groups in enumerate(self._groups):
            for group in groups[prompt]:
                for index, candidate_seed in enumerate(group.seeds):
                    sample = f"{len(rows):04d}.png" if seed == 0 else None
                    where = {"seed": seed, "image_index": group.image_index, "index": index}
                    rows.append({**where, "sample": sample, "candidate_seed": candidate_seed})
        return rows

    def _drawn(self, group: Group) -> tuple[list[Image], list[dict[str, Any]]]:
        """Finished pictures, and what every verifier says of each."""
        stages = {stage for verifier in self.verifiers.values() for stage in verifier.reads} | {IMAGE}
        images: list[Image] = []
        said: list[dict[str, Any]] = []
        for candidates in group.draw(self.generator, stages, self.batch_size, self.sampling):
            images += candidates.images
            said += self._verdicts(group.line.prompt, candidates)
        return images, said

    def _verdicts(self, prompt: str, candidates: Candidates) -> list[dict[str, Any]]:
        """What every verifier says of each candidate, by its name."""
        by_verifier = {name: verifier.score(prompt, candidates) for name, verifier in self.verifiers.items()}
        return [
            {
                name: {"score": verdicts[row].score, "probability": verdicts[row].probability}
                for name, verdicts in by_verifier.items()
            }
            for row in range(len(candidates))
        ]

    @cached_property
    def _groups(self) -> list[list[list[Group]]]:
        """By seed, then by prompt."""
        return [self.benchmark.groups(seed, self.images_per_prompt, self.candidates) for seed in range(self.seeds)]


# FOLDED: Captioned candidates for stage 1: a drawing whose observer says what each picture shows.
#
# The text that a picture was drawn from stays in its row as `prompt`, so that both can be learnt and compared.


class CaptionObserver:
    """Asks a captioner, which sees nothing but the pictures. Column: `caption`."""

    def __init__(self, captioner: Captioner) -> None:
        self.name, self._captioner = captioner.name, captioner

    def __call__(self, lines: Sequence[PromptLine], images: Sequence[Image]) -> list[dict[str, Any]]:
        """See `Observer.__call__`."""
        return [{"caption": caption} for caption in self._captioner(images)]


# FOLDED: Labelled candidates: a drawing whose observer says which pictures are right, and how many of them are.


SUMMARY_FILE = "summary.json"


class LabelObserver:
    """Asks an evaluator. Columns: `correct`, `reason` and `detections`, the latter as JSON text."""

    def __init__(self, evaluator: Evaluator) -> None:
        self.name, self._evaluator = evaluator.name, evaluator

    def __call__(self, lines: Sequence[PromptLine], images: Sequence[Image]) -> list[dict[str, Any]]:
        """See `Observer.__call__`."""
        return [_columns(evaluation) for evaluation in self._evaluator(lines, images)]


def _columns(evaluation: Evaluation) -> dict[str, Any]:
    seen = [ReportedDetection.model_validate(found, from_attributes=True) for found in evaluation.detections]
    detections = json.dumps([found.model_dump(exclude_none=True) for found in seen])
    return {"correct": evaluation.correct, "reason": evaluation.reason, "detections": detections}


class Share(BaseModel):
    """So many rows, and the share in [0, 1] of them that is right."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    rows: int
    correct: float


class LabelSummary(Share):
    """All rows, and those of each task for prompts that name one (the `tag` of their metadata)."""

    tasks: dict[str, Share]


def summarize(folder: CandidateStore) -> LabelSummary:
    """Count a folder's labels, and leave the summary in it. Raises CheckpointError for one that is not complete."""
    summary = _summary_of(folder.table())
    write_shared_text(folder.folder / SUMMARY_FILE, summary.model_dump_json(indent=2) + "\n")
    return summary


def _task(metadata: str) -> str | None:
    task = json.loads(metadata).get("tag")
    return task if isinstance(task, str) else None


def _summary_of(table: pa.Table) -> LabelSummary:
    correct = table["correct"].to_pylist()
    tasks = [_task(metadata) for metadata in table["metadata"].to_pylist()]
    rows, right = Counter(tasks), Counter(task for task, is_right in zip(tasks, correct, strict=True) if is_right)
    shares = {task: Share(rows=rows[task], correct=right[task] / rows[task]) for task in rows if task is not None}
    return LabelSummary(rows=len(correct), correct=sum(correct) / len(correct), tasks=shares)


RECORDED = "the states to be recorded"


class Observer(Protocol):
    """Whoever says something of every picture: an evaluator, a captioner. Called once for each block."""

    @property
    def name(self) -> str:
        """What stands in the rows as `observer_name`."""

    def __call__(self, lines: Sequence[PromptLine], images: Sequence[Image]) -> list[dict[str, Any]]:
        """Further columns for the row of each picture, which goes with the line at its place."""


@dataclass(frozen=True)
class CandidateCollector:
    """What is drawn, who observes it, and which readings of it are recorded; `batch_size` candidates at once."""

    generator: Generator
    lines: Sequence[PromptLine]
    candidates: int
    seed: int
    observer: Observer
    verifier_inputs: Sequence[VerifierInput] = ()
    batch_size: int = 8

    def __post_init__(self) -> None:
        for verifier_input in self.verifier_inputs:
            verifier_input.to(self.generator.device, self.generator.dtype)

    @cached_property
    def settings(self) -> CollectionConfig:
        """What decides the rows."""
        return CollectionConfig(
            generator=public_model_name(self.generator.name),
            revision=self.generator.fingerprint,
            dtype=dtype_name(self.generator.dtype),
            observer_name=self.observer.name,
            prompts=prompts_digest(self.lines),
            candidates=self.candidates,
            seed=self.seed,
            recorded=tuple(verifier_input.name for verifier_input in self.verifier_inputs),
            rows=len(self.lines) * self.candidates,
        )

    @cached_property
    def recorded_bytes(self) -> int:
        """What the states of all rows take on disk, measured on one candidate; 0 where none are recorded.

        Raises MismatchError for a reading of blocks that the generator does not have.
        """
        if not self.verifier_inputs:
            return 0
        for verifier_input in self.verifier_inputs:
            verifier_input.width(self.generator.architecture)
        self._check_prompts(self.lines[:1])
        first = groups_of(self.lines[:1], 1, self.seed)[0]
        (one,) = first.draw(
            self.generator, [verifier_input.stage for verifier_input in self.verifier_inputs], batch_size=1
        )
        return self.settings.rows * sum(
            half(verifier_input.tokens(one)).nbytes for verifier_input in self.verifier_inputs
        )

    def bytes_of(self, rows: int) -> int:
        """What the states of so many rows take on disk. Raises as `recorded_bytes`."""
        return self.recorded_bytes * rows // self.settings.rows

    def run(self, folder: CandidateStore, shard: Shard, report: ProgressCallback) -> None:
        """Draw the shard's blocks that are not in the folder yet.

        Before the folder is begun, raises InvalidRequest where it was made with other settings and for a prompt that
        the generator refuses, naming its line; MismatchError for a reading that it does not have, OutputError where
        the disk is too small for the states. Later, OutputError where nothing can be written, and whatever the
        observer raises.
        """
        folder.refuse_others(self.settings)
        mine = list(shard.indices(self.settings.blocks))
        left = self._left(folder, shard)
        self._check_prompts([group.line for block in left for group in self._groups_in(block)])
        total, wanted = self._rows_in(mine), self._rows_in(left)
        check_room(folder.folder, self.bytes_of(wanted), RECORDED)
        folder.begin(self.settings)
        stopwatch, drawn = Stopwatch(folder.folder.name, total - wanted, total), 0
        with exclusive_lock(folder.folder / "rows" / f".{shard.number}-of-{shard.count}.lock"):
            for block in left:
                folder.write(block, *self._draw(block))
                drawn += self._rows_in([block])
                report(stopwatch.at(total - wanted + drawn, f"{drawn / stopwatch.seconds:.1f} images/s"))

    def rows_left(self, folder: CandidateStore, shard: Shard) -> int:
        """Rows of the shard's blocks that are not in the folder yet. Raises as `run` for a folder of other settings."""
        folder.refuse_others(self.settings)
        return self._rows_in(self._left(folder, shard))

    def _left(self, folder: CandidateStore, shard: Shard) -> list[int]:
        return [block for block in shard.indices(self.settings.blocks) if not folder.has(block)]

    def _check_prompts(self, lines: Iterable[PromptLine]) -> None:
        """Find a prompt that the generator refuses now, not hours later."""
        check_lines(lines, lambda prompt: self.generator.check(prompt, self.generator.defaults))

    def _rows_in(self, blocks: Sequence[int]) -> int:
        return sum(self.settings.rows_in(block) for block in blocks)

    def _draw(self, block: int) -> tuple[list[dict[str, Any]], dict[str, Tensor]]:
        """The rows of a block, and its states by the name of their reading."""
        stages = [*(verifier_input.stage for verifier_input in self.verifier_inputs), IMAGE]
        groups = self._groups_in(block)
        images: list[Image] = []
        states: dict[str, list[Tensor]] = {verifier_input.name: [] for verifier_input in self.verifier_inputs}
        for group in groups:
            for candidates in group.draw(self.generator, stages, self.batch_size):
                images += candidates.images
                for verifier_input in self.verifier_inputs:
                    states[verifier_input.name].append(half(verifier_input.tokens(candidates)))
        return self._rows(groups, images), {name: torch.cat(parts) for name, parts in states.items()}

    def _rows(self, groups: Sequence[Group], images: Sequence[Image]) -> list[dict[str, Any]]:
        settings = self.settings
        made = {"generator": settings.generator, "revision": settings.revision, "observer_name": settings.observer_name}
        observed = self.observer([group.line for group in groups for _ in group.seeds], images)
        rows = [row for group in groups for row in group.rows()]
        return [row | columns | made for row, columns in zip(rows, observed, strict=True)]

    def _groups_in(self, block: int) -> list[Group]:
        first = block * self.settings.prompts_of_a_block
        return self._groups[first : first + self.settings.prompts_of_a_block]

    @cached_property
    def _groups(self) -> list[Group]:
        return groups_of(self.lines, self.candidates, self.seed)
