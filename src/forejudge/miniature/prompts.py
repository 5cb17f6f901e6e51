"""Prompts of the miniature world and their training, validation and test splits.

Class pairs, class-color pairs and attribute combinations are assigned by hash, so the splits differ in *prompts*. A
single object and a count leave nothing to hold out: there the splits differ in seeds only (`split_seed`).
"""

import hashlib
import random
from dataclasses import dataclass
from functools import lru_cache
from itertools import combinations, permutations, product

import torch

from forejudge.miniature.scenes import COLOR_NAMES, KINDS
from forejudge.noise import Split, candidate_seed, split_seed
from forejudge.prompts.geneval import NUMBER_WORDS, RELATIONS, TASKS, DescribedObject, Description, Task
from forejudge.prompts.prompt_file import Group, PromptLine

TASKS_SHARING_PROMPTS: frozenset[Task] = frozenset({"single_object", "counting"})
CASES_PER_TASK = 100
_TASK_WEIGHTS: dict[Task, int] = {"two_object": 2, "counting": 3, "position": 3, "color_attr": 3}


@dataclass(frozen=True)
class TestCase:
    """One image to generate: a prompt and the index of its image, which enters the seed."""

    __test__ = False  # not a pytest class

    description: Description
    image_index: int

    @property
    def line(self) -> PromptLine:
        """Line of a prompt file."""
        return PromptLine(self.description.prompt, self.description.metadata.to_line(), "test case")

    def group(self, seed: int, candidates: int, split: Split = "test") -> Group:
        """Return its candidates under a user's seed, which stands for other seeds in each split."""
        prompt, run_seed = self.description.prompt, split_seed(split, seed)
        seeds = tuple(candidate_seed(run_seed, prompt, self.image_index, index) for index in range(candidates))
        return Group(self.line, self.image_index, seeds)


def _digest(*parts: object) -> int:
    text = "|".join(map(str, parts))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big")


def assign_split(*combination: object) -> Split:
    """Return the split of an unordered combination: 70 % training, 15 % validation, 15 % test."""
    fraction = _digest("split", *sorted(map(str, combination))) / 2**64
    return "training" if fraction < 0.7 else "validation" if fraction < 0.85 else "test"


@lru_cache(maxsize=32)
def descriptions(tag: Task, split: Split) -> tuple[Description, ...]:
    """Return all prompts of a task in a split, in a fixed shuffled order."""
    all_descriptions = sorted(_all_descriptions(tag), key=lambda item: _digest("order", item.prompt))
    if tag in TASKS_SHARING_PROMPTS:
        return tuple(all_descriptions)
    in_split = [item for item in all_descriptions if assign_split(tag, *item.objects) == split]
    return tuple(in_split)


def cases(split: Split, per_task: int = CASES_PER_TASK) -> list[TestCase]:
    """Return `per_task` cases of each task: all its prompts once, then all again as their next image, and so on."""
    result = []
    for tag in TASKS:
        prompts = descriptions(tag, split)
        result += [TestCase(prompts[i % len(prompts)], i // len(prompts)) for i in range(per_task)]
    return result


def sample_descriptions(count: int, generator: torch.Generator, split: Split = "training") -> list[Description]:
    """Sample prompts of all six tasks, the harder tasks more often."""
    rng = random.Random(int(torch.randint(2**62, (), generator=generator)))
    weights = [_TASK_WEIGHTS.get(tag, 1) for tag in TASKS]
    tags = rng.choices(TASKS, weights, k=count)
    return [rng.choice(descriptions(tag, split)) for tag in tags]


def sample_prompt_lines(count: int, split: Split, seed: int) -> list[PromptLine]:
    """Sample prompts as lines of a prompt file; a user's seed stands for other prompts in each split."""
    rng = torch.Generator().manual_seed(split_seed(split, seed))
    sampled = sample_descriptions(count, rng, split)
    return [
        PromptLine(description.prompt, description.metadata.to_line(), f"{split} prompt {number}")
        for number, description in enumerate(sampled, start=1)
    ]


def vocabulary() -> frozenset[str]:
    """Return all words of the miniature's prompts."""
    prompts = (item.prompt for tag in TASKS for item in _all_descriptions(tag))
    return frozenset(word for prompt in prompts for word in prompt.split())


def _all_descriptions(tag: Task) -> list[Description]:
    uncolored = [DescribedObject(kind) for kind in KINDS]
    colored = [DescribedObject(kind, color) for kind, color in product(KINDS, COLOR_NAMES)]
    if tag == "single_object":
        return [Description(tag, (wanted,)) for wanted in uncolored]
    if tag == "counting":
        return [Description(tag, (w,), count=n) for w, n in product(uncolored, NUMBER_WORDS)]
    if tag == "colors":
        return [Description(tag, (wanted,)) for wanted in colored]
    if tag == "two_object":
        return [Description(tag, pair) for pair in permutations(uncolored, 2)]
    if tag == "position":
        pairs = permutations(uncolored, 2)
        return [Description(tag, p, relation=r) for p, r in product(pairs, RELATIONS)]
    return [
        Description(tag, pair)
        for pair in combinations(colored, 2)
        if pair[0].kind != pair[1].kind and pair[0].color != pair[1].color
    ]
