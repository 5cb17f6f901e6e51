"""Which prompts belong to training, validation and test.

Class pairs, class-colour pairs and attribute combinations are assigned by hash, so the splits differ in *prompts*.
A single object and a count leave nothing to hold out: there the splits differ in seeds only (`split_seed`).
"""

import hashlib
import random
from dataclasses import dataclass
from functools import lru_cache
from itertools import combinations, permutations, product
from typing import Literal

import torch

from forejudge.evaluation.description import NUMBER_WORDS, Description, Wanted
from forejudge.evaluation.groups import Group
from forejudge.evaluation.metadata import RELATIONS, TASKS, Task
from forejudge.evaluation.prompts_file import PromptLine
from forejudge.miniature.scene import COLOUR_NAMES
from forejudge.miniature.shapes import KINDS
from forejudge.noise import candidate_seed

Split = Literal["training", "validation", "test"]
TASKS_SHARING_PROMPTS: frozenset[Task] = frozenset({"single_object", "counting"})
CASES_PER_TASK = 100
_TASK_WEIGHTS: dict[Task, int] = {"two_object": 2, "counting": 3, "position": 3, "color_attr": 3}


@dataclass(frozen=True)
class TestCase:
    """One image to be made: a prompt and which of its repeats this is (the repeat enters the seed)."""

    __test__ = False  # not a pytest class

    description: Description
    repeat: int

    @property
    def line(self) -> PromptLine:
        """As a line of a prompts file."""
        return PromptLine(self.description.prompt, self.description.metadata.to_line(), "test case")

    def group(self, seed: int, candidates: int, split: Split = "test") -> Group:
        """Its candidates under a user's seed, which stands for other ones in each split."""
        prompt, run_seed = self.description.prompt, split_seed(split, seed)
        seeds = tuple(candidate_seed(run_seed, prompt, self.repeat, index) for index in range(candidates))
        return Group(self.line, self.repeat, seeds)


def _digest(*parts: object) -> int:
    text = "|".join(map(str, parts))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big")


def split_of(*combination: object) -> Split:
    """The split of an unordered combination: 70 % training, 15 % validation, 15 % test."""
    fraction = _digest("split", *sorted(map(str, combination))) / 2**64
    return "training" if fraction < 0.7 else "validation" if fraction < 0.85 else "test"


def split_seed(split: Split, seed: int) -> int:
    """A run seed for a split: equal user seeds never give equal candidates in two splits."""
    return _digest("run seed", split, seed) % 2**32


@lru_cache(maxsize=32)
def descriptions(tag: Task, split: Split) -> tuple[Description, ...]:
    """All prompts of a task in a split, in a fixed shuffled order."""
    every = sorted(_every(tag), key=lambda item: _digest("order", item.prompt))
    if tag in TASKS_SHARING_PROMPTS:
        return tuple(every)
    held = [item for item in every if split_of(tag, *item.wanted) == split]
    return tuple(held)


def cases(split: Split, per_task: int = CASES_PER_TASK) -> list[TestCase]:
    """`per_task` cases of each task: all its prompts once, then all again with the next repeat, and so on."""
    result = []
    for tag in TASKS:
        prompts = descriptions(tag, split)
        result += [TestCase(prompts[i % len(prompts)], i // len(prompts)) for i in range(per_task)]
    return result


def sample_descriptions(count: int, generator: torch.Generator, split: Split = "training") -> list[Description]:
    """Prompts of all six tasks, the harder tasks more often."""
    source = random.Random(int(torch.randint(2**62, (), generator=generator)))
    weights = [_TASK_WEIGHTS.get(tag, 1) for tag in TASKS]
    tags = source.choices(TASKS, weights, k=count)
    return [source.choice(descriptions(tag, split)) for tag in tags]


def sample_prompt_lines(count: int, split: Split, seed: int) -> list[PromptLine]:
    """The same as lines of a prompts file; a user's seed stands for other prompts in each split."""
    source = torch.Generator().manual_seed(split_seed(split, seed))
    described = sample_descriptions(count, source, split)
    return [
        PromptLine(description.prompt, description.metadata.to_line(), f"{split} prompt {at}")
        for at, description in enumerate(described, start=1)
    ]


def _every(tag: Task) -> list[Description]:
    plain = [Wanted(kind) for kind in KINDS]
    coloured = [Wanted(kind, colour) for kind, colour in product(KINDS, COLOUR_NAMES)]
    if tag == "single_object":
        return [Description(tag, (wanted,)) for wanted in plain]
    if tag == "counting":
        return [Description(tag, (w,), count=n) for w, n in product(plain, NUMBER_WORDS)]
    if tag == "colors":
        return [Description(tag, (wanted,)) for wanted in coloured]
    if tag == "two_object":
        return [Description(tag, pair) for pair in permutations(plain, 2)]
    if tag == "position":
        pairs = permutations(plain, 2)
        return [Description(tag, p, relation=r) for p, r in product(pairs, RELATIONS)]
    return [
        Description(tag, pair)
        for pair in combinations(coloured, 2)
        if pair[0].kind != pair[1].kind and pair[0].colour != pair[1].colour
    ]
