"""Which prompts belong to training, validation and test.

Class pairs, class-colour pairs and attribute combinations are assigned by hash, so the splits differ in *prompts*.
A single object and a count leave nothing to hold out: there the splits differ in seeds only (`split_seed`).
"""

import hashlib
import math
import random
from dataclasses import dataclass
from functools import lru_cache
from itertools import combinations, permutations, product
from typing import Literal

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from forejudge.miniature.scenes import (
    COLOR_NAMES,
    IMAGE_SIZE,
    KINDS,
    MAX_RADIUS,
    MIN_RADIUS,
    SceneBatch,
    coverage,
)
from forejudge.noise import candidate_seed
from forejudge.prompts.geneval import NUMBER_WORDS, RELATIONS, TASKS, Description, Task, Wanted
from forejudge.prompts.prompt_file import Group, PromptLine

# FOLDED: What each kind looks like in a normalised frame, and how alike an outline is to it.
#
# A soft outline is moved to its centre of mass and scaled to the same area, so that place and size drop out and only
# the shape is left to compare. The bank is drawn by the world's own renderer and normalised by the same function.
#
# Shape letters: H and W pixels, K kinds, P templates, G cells of the normalised frame (24 x 24, flattened).


FloatMap = NDArray[np.float32]

_SIDE = 24
_SPAN = 1.15  # half the frame's side, in square roots of the outline's area
_RADII = (MIN_RADIUS, (MIN_RADIUS + MAX_RADIUS) / 2, MAX_RADIUS)
_OFFSETS = (0.0, 1 / 3, 2 / 3)  # of the centre on the pixel grid
_BLUR = 0.8  # pixels; each outline is in the bank as drawn and blurred


def soft_mask_from_opacity(opacity: FloatMap) -> FloatMap:
    """Opacity to cover in [0, 1]: what is faint counts as nothing, what is nearly opaque in full."""
    return np.clip((opacity - 0.3) / 0.4, 0, 1).astype(np.float32)


@dataclass(frozen=True)
class Match:
    """The kind that an outline is likest to.

    `margin` is by how much its overlap (soft intersection over union) exceeds that of the second kind, `radius` the
    object's size in pixels, and `error` how far the outline runs beside the kind's own on average, over the radius.
    """

    kind: str
    margin: float
    radius: float
    error: float


def match(soft_mask_HW: FloatMap) -> Match:
    """Compare a soft outline, not empty, with all kinds."""
    bank = _bank()
    cells_G, cell = _normalize(soft_mask_HW)
    intersection_P = np.minimum(bank.templates_PG, cells_G).sum(axis=1)
    total_P = bank.areas_P + cells_G.sum()
    iou_K = (intersection_P / (total_P - intersection_P)).reshape(len(KINDS), -1).max(axis=1)
    mismatch_K = ((total_P - 2 * intersection_P) / bank.lengths_P).reshape(len(KINDS), -1).min(axis=1)
    second, first = np.argsort(iou_K)[-2:]
    radius = math.sqrt(soft_mask_HW.sum() / bank.unit_areas_K[first])
    margin = float(iou_K[first] - iou_K[second])
    return Match(KINDS[first], margin, radius, error=float(mismatch_K[first]) * cell / radius)


def _normalize(soft_mask_HW: FloatMap) -> tuple[FloatMap, float]:
    """A soft outline in the common frame, (G,) in [0, 1], and the frame's cell in pixels."""
    moments = cv2.moments(soft_mask_HW)
    area = moments["m00"]
    cell = 2 * _SPAN * math.sqrt(area) / _SIDE
    corner = -cell * (_SIDE - 1) / 2
    x, y = moments["m10"] / area + corner, moments["m01"] / area + corner
    to_source = np.array([[cell, 0, x], [0, cell, y]])
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    moved = cv2.warpAffine(soft_mask_HW, to_source, (_SIDE, _SIDE), flags=flags)
    return np.asarray(moved, np.float32).reshape(-1), cell


@dataclass(frozen=True)
class _Bank:
    """The templates, kind by kind: their cells, areas and outlines' lengths; and each kind's area at radius 1."""

    templates_PG: FloatMap
    areas_P: FloatMap
    lengths_P: FloatMap
    unit_areas_K: FloatMap


@lru_cache(maxsize=1)
def _bank() -> _Bank:
    soft_masks = _render_templates()
    templates_PG = np.array(
        [_normalize(soft_mask_from_opacity(each))[0] for kind in soft_masks for each in _with_blurred(kind)]
    )
    slopes = np.gradient(templates_PG.reshape(-1, _SIDE, _SIDE), axis=(1, 2))
    radii = np.array([radius for radius, _, _ in _variants()], np.float32)
    return _Bank(
        templates_PG=templates_PG,
        areas_P=templates_PG.sum(axis=1),
        lengths_P=np.hypot(*slopes).sum(axis=(1, 2)),
        unit_areas_K=(soft_masks.sum(axis=(2, 3)) / radii**2).mean(axis=1),
    )


def _with_blurred(soft_masks: FloatMap) -> list[FloatMap]:
    soft = [np.asarray(cv2.GaussianBlur(soft_mask, (0, 0), _BLUR)) for soft_mask in soft_masks]
    return [*soft_masks, *soft]


def _variants() -> list[tuple[float, float, float]]:
    """(radius, x offset, y offset) of everything that is drawn of a kind."""
    return list(product(_RADII, _OFFSETS, _OFFSETS))


def _render_templates() -> FloatMap:
    """Every kind in every variant, drawn: (K, variants, H, W)."""
    rendered = list(product(range(len(KINDS)), _variants()))
    middle = IMAGE_SIZE / 2
    centers = [[[middle + x, middle + y]] for _, (_, x, y) in rendered]
    scenes = SceneBatch(
        kind_NK=torch.tensor([[kind] for kind, _ in rendered]),
        color_NK=torch.zeros(len(rendered), 1, dtype=torch.long),
        center_NK2=torch.tensor(centers),
        radius_NK=torch.tensor([[radius] for _, (radius, _, _) in rendered]),
        present_NK=torch.ones(len(rendered), 1, dtype=torch.bool),
        background_N=torch.zeros(len(rendered)),
    )
    return coverage(scenes, slot=0).unflatten(0, (len(KINDS), -1)).numpy()


Split = Literal["training", "validation", "test"]
TASKS_SHARING_PROMPTS: frozenset[Task] = frozenset({"single_object", "counting"})
CASES_PER_TASK = 100
_TASK_WEIGHTS: dict[Task, int] = {"two_object": 2, "counting": 3, "position": 3, "color_attr": 3}


@dataclass(frozen=True)
class TestCase:
    """One image to be made: a prompt and which of its repeats this is (the repeat enters the seed)."""

    __test__ = False  # not a pytest class

    description: Description
    image_index: int

    @property
    def line(self) -> PromptLine:
        """As a line of a prompts file."""
        return PromptLine(self.description.prompt, self.description.metadata.to_line(), "test case")

    def group(self, seed: int, candidates: int, split: Split = "test") -> Group:
        """Its candidates under a user's seed, which stands for other ones in each split."""
        prompt, run_seed = self.description.prompt, split_seed(split, seed)
        seeds = tuple(candidate_seed(run_seed, prompt, self.image_index, index) for index in range(candidates))
        return Group(self.line, self.image_index, seeds)


def _digest(*parts: object) -> int:
    text = "|".join(map(str, parts))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big")


def assign_split(*combination: object) -> Split:
    """The split of an unordered combination: 70 % training, 15 % validation, 15 % test."""
    fraction = _digest("split", *sorted(map(str, combination))) / 2**64
    return "training" if fraction < 0.7 else "validation" if fraction < 0.85 else "test"


def split_seed(split: Split, seed: int) -> int:
    """A run seed for a split: equal user seeds never give equal candidates in two splits."""
    return _digest("run seed", split, seed) % 2**32


@lru_cache(maxsize=32)
def descriptions(tag: Task, split: Split) -> tuple[Description, ...]:
    """All prompts of a task in a split, in a fixed shuffled order."""
    all_descriptions = sorted(_all_descriptions(tag), key=lambda item: _digest("order", item.prompt))
    if tag in TASKS_SHARING_PROMPTS:
        return tuple(all_descriptions)
    in_split = [item for item in all_descriptions if assign_split(tag, *item.wanted) == split]
    return tuple(in_split)


def cases(split: Split, per_task: int = CASES_PER_TASK) -> list[TestCase]:
    """`per_task` cases of each task: all its prompts once, then all again with the next repeat, and so on."""
    result = []
    for tag in TASKS:
        prompts = descriptions(tag, split)
        result += [TestCase(prompts[i % len(prompts)], i // len(prompts)) for i in range(per_task)]
    return result


def sample_descriptions(count: int, generator: torch.Generator, split: Split = "training") -> list[Description]:
    """Prompts of all six tasks, the harder tasks more often."""
    rng = random.Random(int(torch.randint(2**62, (), generator=generator)))
    weights = [_TASK_WEIGHTS.get(tag, 1) for tag in TASKS]
    tags = rng.choices(TASKS, weights, k=count)
    return [rng.choice(descriptions(tag, split)) for tag in tags]


def sample_prompt_lines(count: int, split: Split, seed: int) -> list[PromptLine]:
    """The same as lines of a prompts file; a user's seed stands for other prompts in each split."""
    rng = torch.Generator().manual_seed(split_seed(split, seed))
    sampled = sample_descriptions(count, rng, split)
    return [
        PromptLine(description.prompt, description.metadata.to_line(), f"{split} prompt {number}")
        for number, description in enumerate(sampled, start=1)
    ]


def _all_descriptions(tag: Task) -> list[Description]:
    uncolored = [Wanted(kind) for kind in KINDS]
    colored = [Wanted(kind, color) for kind, color in product(KINDS, COLOR_NAMES)]
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
