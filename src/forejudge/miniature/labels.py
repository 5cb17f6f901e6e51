"""Labelled candidates of the miniature: hidden states after every block, and whether the finished picture is right.

They lie in a folder: rows.parquet (one row a candidate) and hidden_KK.npy (M, T, D) in half precision for each cut.
`rows.parquet` is written last, so a folder without it is unfinished; work goes on after the last whole shard.
"""

import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from numpy.typing import NDArray
from torch import Tensor

from forejudge.evaluation.geneval import judge_image
from forejudge.generators.base import Generator, Sampling
from forejudge.generators.sana_sprint import SanaConditioning
from forejudge.journal import Journal
from forejudge.miniature.description import Description
from forejudge.miniature.detector import detect
from forejudge.miniature.splits import Split, sample_descriptions, split_seed
from forejudge.miniature.training_loop import Progress, generator_at
from forejudge.noise import candidate_seed
from forejudge.types import IMAGE, Candidates, prefix_stage

ONE_STEP = Sampling()


@dataclass(frozen=True)
class Labelled:
    """One candidate and what GenEval's rules say of its picture."""

    prompt: str
    task: str
    image_index: int
    index: int
    seed: int
    correct: bool
    reason: str


@dataclass(frozen=True)
class Group:
    """A prompt, which of its images, and the run seed that its candidates' seeds follow from."""

    description: Description
    image_index: int
    run_seed: int

    def seeds(self, count: int) -> tuple[int, ...]:
        prompt = self.description.prompt
        return tuple(candidate_seed(self.run_seed, prompt, self.image_index, i) for i in range(count))


def labelling_groups(split: Split, count: int, seed: int) -> list[Group]:
    """Prompts of a split to label, the harder tasks more often; a prompt that comes again is its next image."""
    source = generator_at(split_seed(split, seed), 0)
    seen: Counter[str] = Counter()
    groups = []
    for description in sample_descriptions(count, source, split):
        groups.append(Group(description, seen[description.prompt], split_seed(split, seed)))
        seen[description.prompt] += 1
    return groups


def draw_candidates(
    generator: Generator, group: Group, seeds: tuple[int, ...], cuts: Iterable[int], sampling: Sampling = ONE_STEP
) -> Candidates:
    """Finished candidates of a group, with a view after each cut of the first step, and the picture."""
    conditioning = _without_padding(generator.encode(group.description.prompt, sampling))
    stages = [*(prefix_stage(cut) for cut in cuts), IMAGE]
    return generator.advance(generator.start(conditioning, seeds), stages)


def _without_padding(conditioning: SanaConditioning) -> SanaConditioning:
    """Masked text tokens have no weight at all in attention; left out, a candidate takes a third of the time."""
    length = int(conditioning.mask_NL.sum())
    return replace(conditioning, text_NLD=conditioning.text_NLD[:, :length], mask_NL=conditioning.mask_NL[:, :length])


def label(group: Group, candidates: Candidates) -> list[Labelled]:
    """One row for each finished candidate."""
    description = group.description
    rows = []
    for index, (seed, picture) in enumerate(zip(candidates.seeds, candidates.pictures, strict=True)):
        verdict = judge_image(detect(picture), description.metadata)
        rows.append(
            Labelled(
                description.prompt, description.tag, group.image_index, index, seed, verdict.correct, verdict.reason
            )
        )
    return rows


Labeller = Callable[[Group, Candidates], list[Labelled]]


class LabelledSet:
    """A folder of labelled candidates, one file of states for each cut."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @property
    def complete(self) -> bool:
        return (self.folder / "rows.parquet").is_file()

    def rows(self) -> list[Labelled]:
        table = pq.read_table(self.folder / "rows.parquet")
        return [Labelled(**row) for row in table.to_pylist()]

    def hidden_MTD(self, cut: int) -> NDArray[np.float16]:
        """The states after `cut` blocks, mapped from disk: (M, T, D)."""
        states: NDArray[np.float16] = np.load(self.folder / f"hidden_{cut:02d}.npy", mmap_mode="r")
        return states

    def record(
        self,
        generator: Generator,
        groups: list[Group],
        candidates_each: int,
        cuts: tuple[int, ...],
        labeller: Labeller,
        report: Callable[[Progress], None],
    ) -> None:
        """Draw, judge and store all groups. Goes on after the last group that was stored whole."""
        self.folder.mkdir(parents=True, exist_ok=True)
        stored = _Stored(self.folder, generator, len(groups) * candidates_each, cuts)
        first, started = stored.groups, time.monotonic()
        for number in range(first, len(groups)):
            group = groups[number]
            candidates = draw_candidates(generator, group, group.seeds(candidates_each), cuts)
            stored.add(labeller(group, candidates), [candidates.tensor(prefix_stage(cut)) for cut in cuts])
            pace = (time.monotonic() - started) / (number + 1 - first)
            report(Progress(self.folder.name, number + 1, len(groups), pace * (len(groups) - number - 1)))
        stored.finish()


class _Stored:
    """States in memory-mapped arrays, rows in a journal: one entry a group, written after its states."""

    def __init__(self, folder: Path, generator: Generator, total: int, cuts: tuple[int, ...]) -> None:
        self.folder, self.journal = folder, Journal(folder / "rows.jsonl")
        architecture = generator.architecture
        shape = (total, architecture.latent_size**2, architecture.width)
        self.states = [self._array(folder / f"hidden_{cut:02d}.npy", shape) for cut in cuts]

    @property
    def groups(self) -> int:
        return len(self.journal.entries)

    def add(self, rows: list[Labelled], views: list[Tensor]) -> None:
        first = self.groups * len(rows)
        for states, view in zip(self.states, views, strict=True):
            states[first : first + len(rows)] = view.to("cpu", torch.float16).numpy()
        self.journal.add([asdict(row) for row in rows])

    def finish(self) -> None:
        for states in self.states:
            states.flush()
        table = pa.Table.from_pylist([row for group in self.journal.entries for row in group])
        unfinished = self.folder / "rows.unfinished"
        pq.write_table(table, unfinished)
        unfinished.replace(self.folder / "rows.parquet")
        self.journal.path.unlink()

    @staticmethod
    def _array(path: Path, shape: tuple[int, ...]) -> np.memmap[Any, np.dtype[np.float16]]:
        if path.exists():
            return np.lib.format.open_memmap(path, mode="r+")
        return np.lib.format.open_memmap(path, mode="w+", dtype=np.float16, shape=shape)


def batches(array: NDArray[np.float16], size: int = 512) -> Iterator[Tensor]:
    """An array's rows in float32, `size` at a time."""
    for first in range(0, len(array), size):
        yield torch.from_numpy(np.asarray(array[first : first + size], dtype=np.float32))
