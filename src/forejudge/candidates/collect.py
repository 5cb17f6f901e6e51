"""The collector: generates candidates of many prompts, shows them to an observer, and fills a store block by block.

Every run over many prompts is a `Collector`: labeling, captioning and evaluation here, searches in `searches`. It skips
the blocks that are there, so that a stopped run continues, and takes one shard, so that several processes share a run.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, Generic, TypeVar

import torch
from PIL.Image import Image
from torch import Tensor

from forejudge.candidates.evaluation_store import NO_SECOND_STEP, EvaluationSettings, EvaluationStore
from forejudge.candidates.features import half
from forejudge.candidates.observers import Columns, EvaluationObserver, Observer
from forejudge.candidates.second_steps import doubtful_winners
from forejudge.candidates.store import BlockStore, CandidateStore, CollectionConfig
from forejudge.device import dtype_name
from forejudge.errors import BrokenImage
from forejudge.evaluators.base import Evaluator
from forejudge.evaluators.benchmarks import Benchmark
from forejudge.files import check_room
from forejudge.generators import load_generator
from forejudge.generators.base import Generator, SamplingParams
from forejudge.hub import public_model_name
from forejudge.noise import Split, split_seed
from forejudge.options import check_count
from forejudge.progress import ProgressCallback, Shard, Stopwatch
from forejudge.prompts.prompt_file import Group, PromptLine, check_lines, groups_of, prompts_digest
from forejudge.types import IMAGE, Grid
from forejudge.verifiers.base import Verifier
from forejudge.verifiers.inputs import VerifierInput

RECORDED = "the states to be recorded"
_ONE_STEP = SamplingParams()
_MAX_CANDIDATES_PER_PROMPT = 100_000  # of an evaluation, whose rows are laid out before it begins

StoreT = TypeVar("StoreT", bound=BlockStore[Any])


class Collector(ABC, Generic[StoreT]):
    """Work over many prompts that fills a store."""

    unit = "images"  # that progress counts

    @property
    @abstractmethod
    def settings(self) -> Any:
        """Configuration that decides the rows: the store's."""

    @property
    @abstractmethod
    def prompt_lines(self) -> Sequence[PromptLine]:
        """Lines of all prompts."""

    @property
    @abstractmethod
    def blocks(self) -> int:
        """Number of blocks."""

    @abstractmethod
    def check(self, blocks: Sequence[int], store: StoreT) -> None:
        """Refuse now what would fail hours later in one of `blocks`."""

    @abstractmethod
    def collect(self, block: int, store: StoreT) -> None:
        """Generate one block and write it."""

    def units_in(self, block: int) -> int:
        """Return how far one block advances the progress."""
        return 1

    def run(self, store: StoreT, shard: Shard, report: ProgressCallback) -> None:
        """Collect the shard's blocks that are not in the store yet.

        Raises InvalidRequest, before anything is written, for a store begun with another configuration or other prompts
        and for a prompt the generator refuses, naming its line. Raises OutputError where the store cannot be written,
        and any error of the observer.
        """
        left = self.blocks_left(store, shard)
        self.check(left, store)
        total, collected = sum(map(self.units_in, shard.indices(self.blocks))), 0
        before = total - sum(map(self.units_in, left))
        stopwatch = Stopwatch(store.path.name, before, total)
        with store.lock(shard):
            store.begin(self.settings)  # under the lock, so that no two runs begin it at once
            store.record_prompts(self.prompt_lines)
            for block in (block for block in left if not store.has(block)):  # another process may have been faster
                self.collect(block, store)
                collected += self.units_in(block)
                report(stopwatch.at(before + collected, f"{collected / stopwatch.seconds:.1f} {self.unit}/s"))

    def blocks_left(self, store: StoreT, shard: Shard) -> list[int]:
        """Return the shard's blocks that are not in the store yet. Raises InvalidRequest as `run` does."""
        store.check_prompts(self.prompt_lines)
        store.refuse_other(self.settings)
        return [block for block in shard.indices(self.blocks) if not store.has(block)]


def check_prompts(generator: str, lines: Iterable[PromptLine]) -> None:
    """Raise InvalidRequest, naming its line, for the first prompt that a generator cannot serve; no weights are read.

    `generator` is one that `load_generator` takes. Raises its errors.
    """
    without_weights = load_generator(generator, torch.device("meta"), torch.float32)
    check_lines(lines, lambda prompt: without_weights.check(prompt, without_weights.defaults))


@dataclass(frozen=True)
class ObservedGroups:
    """Images of some groups, their candidates' columns, and recorded states by verifier input, all in one order.

    `grids` are those of the states' tokens, by verifier input.
    """

    images: list[Image]
    columns: list[Columns]
    states: dict[str, Tensor]
    grids: dict[str, Grid | None]


def observe(
    generator: Generator,
    groups: Sequence[Group],
    observer: Observer,
    verifier_inputs: Sequence[VerifierInput] = (),
    *,
    batch_size: int,
    sampling: SamplingParams | None = None,
) -> ObservedGroups:
    """Generate the candidates of `groups`, show them to the observer, and record the tokens of `verifier_inputs`.

    Raises BrokenImage, naming prompt and seed, for an image that is not finite: it would count as wrong.
    """
    stages = {IMAGE, *observer.stages, *(verifier_input.stage for verifier_input in verifier_inputs)}
    images: list[Image] = []
    columns: list[Columns] = []
    states: dict[str, list[Tensor]] = {verifier_input.name: [] for verifier_input in verifier_inputs}
    grids: dict[str, Grid | None] = {}
    for group in groups:
        for candidates in group.generate(generator, stages, batch_size, sampling):
            try:
                images += candidates.images
            except BrokenImage as error:
                raise BrokenImage(error.seed, f"prompt {group.line.prompt!r}: ") from None
            columns += observer.score(group.line.prompt, candidates)
            for verifier_input in verifier_inputs:
                states[verifier_input.name].append(half(verifier_input.tokens(candidates)))
                grids[verifier_input.name] = verifier_input.grid(candidates)
    observed = observer([group.line for group in groups for _ in group.seeds], images)
    columns = [scored | seen for scored, seen in zip(columns, observed, strict=True)]
    return ObservedGroups(images, columns, {name: torch.cat(parts) for name, parts in states.items()}, grids)


@dataclass(frozen=True)
class CandidateCollector(Collector[CandidateStore]):
    """Candidates of each line, labeled or captioned by an observer, with recorded `verifier_inputs`.

    Their seeds derive from `seed` and `split`. `batch_size` candidates of a prompt are generated at once.
    """

    generator: Generator
    lines: Sequence[PromptLine]
    candidates: int
    seed: int
    observer: Observer
    verifier_inputs: Sequence[VerifierInput] = ()
    split: Split = "training"
    batch_size: int = 8

    def __post_init__(self) -> None:
        check_count("candidates", self.candidates)
        check_count("batch_size", self.batch_size)
        for verifier_input in self.verifier_inputs:
            verifier_input.to(self.generator.device, self.generator.dtype)

    @cached_property
    def settings(self) -> CollectionConfig:
        """See `Collector.settings`."""
        return CollectionConfig(
            generator=public_model_name(self.generator.name),
            revision=self.generator.fingerprint,
            dtype=dtype_name(self.generator.dtype),
            observer_name=self.observer.name,
            prompts=prompts_digest(self.lines),
            candidates=self.candidates,
            seed=self.seed,
            split=self.split,
            recorded=tuple(verifier_input.name for verifier_input in self.verifier_inputs),
            rows=len(self.lines) * self.candidates,
        )

    @property
    def prompt_lines(self) -> Sequence[PromptLine]:
        """See `Collector.prompt_lines`."""
        return self.lines

    @property
    def blocks(self) -> int:
        """See `Collector.blocks`."""
        return self.settings.blocks

    @cached_property
    def recorded_bytes(self) -> int:
        """Bytes on disk of the states of all rows, measured on one candidate; 0 where none are recorded.

        Raises MismatchError for a verifier input that the generator does not have.
        """
        if not self.verifier_inputs:
            return 0
        for verifier_input in self.verifier_inputs:
            verifier_input.width(self.generator.architecture)
        self._check_prompts(self.lines[:1])
        first = groups_of(self.lines[:1], 1, split_seed(self.split, self.seed))[0]
        stages = [verifier_input.stage for verifier_input in self.verifier_inputs]
        (one,) = first.generate(self.generator, stages, batch_size=1)
        return self.settings.rows * sum(half(each.tokens(one)).nbytes for each in self.verifier_inputs)

    def bytes_of(self, rows: int) -> int:
        """Return the bytes on disk of the states of `rows` rows. Raises as `recorded_bytes`."""
        return self.recorded_bytes * rows // self.settings.rows

    def rows_left(self, store: CandidateStore, shard: Shard) -> int:
        """Return the number of the shard's rows that are not in the store yet. Raises InvalidRequest as `run` does."""
        return sum(map(self.units_in, self.blocks_left(store, shard)))

    def units_in(self, block: int) -> int:
        """See `Collector.units_in`: rows."""
        return self.settings.rows_in(block)

    def check(self, blocks: Sequence[int], store: CandidateStore) -> None:
        """See `Collector.check`: prompts, verifier inputs, and room for their states."""
        self._check_prompts(group.line for block in blocks for group in self._groups_in(block))
        check_room(store.path, self.bytes_of(sum(map(self.units_in, blocks))), RECORDED)

    def collect(self, block: int, store: CandidateStore) -> None:
        """See `Collector.collect`."""
        groups, settings = self._groups_in(block), self.settings
        observed = observe(self.generator, groups, self.observer, self.verifier_inputs, batch_size=self.batch_size)
        origin = {
            "generator": settings.generator,
            "revision": settings.revision,
            "observer_name": settings.observer_name,
        }
        rows = [row for group in groups for row in group.rows()]
        rows = [row | columns | origin for row, columns in zip(rows, observed.columns, strict=True)]
        store.write(block, rows, observed.states, observed.grids)

    def _check_prompts(self, lines: Iterable[PromptLine]) -> None:
        check_lines(lines, lambda prompt: self.generator.check(prompt, self.generator.defaults))

    def _groups_in(self, block: int) -> list[Group]:
        first = block * self.settings.prompts_per_block
        return self._groups[first : first + self.settings.prompts_per_block]

    @cached_property
    def _groups(self) -> list[Group]:
        return groups_of(self.lines, self.candidates, split_seed(self.split, self.seed))


@dataclass(frozen=True)
class EvaluationCollector(Collector[EvaluationStore]):
    """Candidates of a benchmark, shared by all `verifiers`, whose names are those of the tables.

    The benchmark's evaluator decides which images are correct; `second_evaluators`, by name, are recorded beside it.
    With `second_step` it also evaluates images after two steps from the same noise: those of all candidates, or with
    `second_step_below` only those that a search may ask for, see `EvaluationSettings`.
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
    second_step: bool = False
    second_step_below: float | None = None

    unit = "prompts"

    def __post_init__(self) -> None:
        for name in ("candidates", "images_per_prompt", "seeds", "batch_size"):
            check_count(name, getattr(self, name))
        per_prompt = self.candidates * self.images_per_prompt * self.seeds
        check_count("candidates x images per prompt x seeds", per_prompt, maximum=_MAX_CANDIDATES_PER_PROMPT)

    @cached_property
    def settings(self) -> EvaluationSettings:
        """See `Collector.settings`."""
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
            second_step=self.second_step,
            second_step_below=self.second_step_below,
        )

    @property
    def prompt_lines(self) -> Sequence[PromptLine]:
        """See `Collector.prompt_lines`."""
        return self.benchmark.lines

    @property
    def blocks(self) -> int:
        """See `Collector.blocks`."""
        return self.settings.prompts

    def check(self, blocks: Sequence[int], store: EvaluationStore) -> None:
        """See `Collector.check`: prompts."""
        lines = (self.benchmark.lines[prompt] for prompt in blocks)
        check_lines(lines, lambda prompt: self.generator.check(prompt, self.sampling))

    def collect(self, block: int, store: EvaluationStore) -> None:
        """See `Collector.collect`."""
        line, rows = self.benchmark.lines[block], self._rows(block)
        # One group of all the prompt's candidates: groups of a few each would be generated in small batches.
        group = Group(line, 0, tuple(row["seed"] for row in rows))
        observed = observe(self.generator, [group], self._observer, batch_size=self.batch_size, sampling=self.sampling)
        kept = [image for row, image in zip(rows, observed.images, strict=True) if row["sample"]]
        second_step = self._second_step_columns(group, observed.columns)
        columns = [*zip(rows, observed.columns, second_step, strict=True)]
        store.write_prompt(block, line.metadata, [row | one | two for row, one, two in columns], kept)

    def _second_step_columns(self, group: Group, first_step: Sequence[Columns]) -> list[Columns]:
        columns: list[Columns] = [dict(NO_SECOND_STEP) for _ in first_step]
        chosen = self._second_step_rows(first_step)
        if not chosen:
            return columns
        sampling = self.sampling.model_copy(update={"steps": 2})
        observer = EvaluationObserver({}, self.benchmark.evaluator, self.second_evaluators)
        few = replace(group, seeds=tuple(group.seeds[row] for row in chosen))
        observed = observe(self.generator, [few], observer, batch_size=self.batch_size, sampling=sampling)
        for row, found in zip(chosen, observed.columns, strict=True):
            correct, second = found["correct"], found["second_correct"] or None
            columns[row] = {"second_step_correct": correct, "second_step_second_correct": second}
        return columns

    def _second_step_rows(self, first_step: Sequence[Columns]) -> Sequence[int]:
        if not self.second_step:
            return ()
        if self.second_step_below is None:
            return range(len(first_step))
        return doubtful_winners([row["verdicts"] for row in first_step], self.candidates, self.second_step_below)

    def _rows(self, prompt: int) -> list[dict[str, Any]]:
        """Return the rows of a prompt's candidates without the observer's columns; `sample` names a kept image."""
        rows: list[dict[str, Any]] = []
        for seed_index, groups in enumerate(self._groups):
            for row in (row for group in groups[prompt] for row in group.rows()):
                sample = f"{len(rows):04}.png" if seed_index == 0 else None
                rows.append(row | {"seed_index": seed_index, "sample": sample})
        return rows

    @cached_property
    def _observer(self) -> EvaluationObserver:
        return EvaluationObserver(self.verifiers, self.benchmark.evaluator, self.second_evaluators)

    @cached_property
    def _groups(self) -> list[list[list[Group]]]:
        """Groups by seed, then by prompt."""
        return [self.benchmark.groups(seed, self.images_per_prompt, self.candidates) for seed in range(self.seeds)]
