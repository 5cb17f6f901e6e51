"""Candidates for one picture of one prompt: their seeds, the rows they become, and how they are drawn."""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from forejudge.evaluation.prompts_file import PromptLine
from forejudge.generators.base import Generator, Sampling
from forejudge.noise import candidate_seed
from forejudge.types import Candidates, Stage


@dataclass(frozen=True)
class Group:
    """The candidates for a prompt's `image_index`-th picture."""

    line: PromptLine
    image_index: int
    seeds: tuple[int, ...]

    def rows(self) -> list[dict[str, Any]]:
        """What is known of each candidate before it is drawn."""
        known = {"prompt": self.line.prompt, "metadata": self.line.metadata, "image_index": self.image_index}
        return [{**known, "index": index, "seed": seed} for index, seed in enumerate(self.seeds)]

    def draw(
        self, generator: Generator, stages: Iterable[Stage], batch_size: int, sampling: Sampling | None = None
    ) -> Iterator[Candidates]:
        """The candidates drawn to the furthest of `stages`, `batch_size` at a time, the prompt encoded once.

        Without `sampling` they are drawn by the generator's defaults.
        """
        conditioning = generator.encode_without_padding(self.line.prompt, sampling or generator.defaults)
        wanted = frozenset(stages)
        for first in range(0, len(self.seeds), batch_size):
            yield generator.advance(generator.start(conditioning, self.seeds[first : first + batch_size]), wanted)


def groups_of(lines: Sequence[PromptLine], candidates: int, run_seed: int) -> list[Group]:
    """A group for each line; a prompt that comes again is its next image."""
    seen: Counter[str] = Counter()
    groups = []
    for line in lines:
        prompt = line.prompt.strip()  # as seeds see it
        seeds = tuple(candidate_seed(run_seed, prompt, seen[prompt], index) for index in range(candidates))
        groups.append(Group(line, seen[prompt], seeds))
        seen[prompt] += 1
    return groups
