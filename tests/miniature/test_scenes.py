"""The miniature world: shapes, scenes, prompts, splits, and the coupling of noise and scene."""

import hashlib
from collections import Counter
from itertools import combinations

import numpy as np
import pytest
import torch

from forejudge.evaluators.geneval_rules import evaluate_image, relative_position
from forejudge.miniature.prompts import (
    CASES_PER_TASK,
    TASKS_SHARING_PROMPTS,
    assign_split,
    cases,
    descriptions,
    sample_descriptions,
    sample_prompt_lines,
)
from forejudge.miniature.scenes import (
    BACKGROUND_RANGE,
    COLOR_NAMES,
    IMAGE_SIZE,
    KINDS,
    MAX_RADIUS,
    MIN_RADIUS,
    SceneBatch,
    SceneConstraints,
    couple,
    coverage,
    render,
)
from forejudge.noise import Split, split_seed
from forejudge.prompts.geneval import COLORS, RELATIONS, TASKS, DescribedObject, Description, PromptMetadata, Task
from tests.support.scenes import held_out, noise, render_scenes, single

SPLITS: tuple[Split, ...] = ("training", "validation", "test")


# Shapes and scenes


def test_the_world_has_twelve_kinds_and_the_ten_colours_of_geneval() -> None:
    assert len(KINDS) == 12
    assert set(COLOR_NAMES) == set(COLORS)


@pytest.mark.parametrize(
    ("kind", "unit_area"),
    [("circle", np.pi), ("square", 1.8**2), ("ring", np.pi * (1.08**2 - 0.52**2)), ("frame", 3.0), ("diamond", 2.04)],
)
def test_a_shape_covers_its_area(kind: str, unit_area: float) -> None:
    covered = coverage(single(kind).scenes, slot=0).sum().item()
    assert covered == pytest.approx(unit_area * 9**2, rel=0.02)


def test_no_two_kinds_look_alike() -> None:
    covers = [coverage(single(kind).scenes, slot=0) for kind in KINDS]
    for one, other in combinations(covers, 2):
        overlap = torch.minimum(one, other).sum() / torch.maximum(one, other).sum()
        assert overlap < 0.87


def test_later_objects_hide_earlier_ones_and_empty_slots_show_nothing() -> None:
    scenes = SceneBatch(
        kind_NK=torch.full((1, 3), KINDS.index("square")),
        color_NK=torch.tensor([[COLOR_NAMES.index(name) for name in ("red", "green", "white")]]),
        center_NK2=torch.tensor([[[20.0, 20.0], [24.0, 20.0], [44.0, 44.0]]]),
        radius_NK=torch.full((1, 3), 8.0),
        present_NK=torch.tensor([[True, True, False]]),
        background_N=torch.tensor([0.5]),
    )
    drawn = render(scenes)[0].permute(1, 2, 0).numpy()
    assert drawn[20, 24] == pytest.approx((0.10, 0.62, 0.15))
    assert drawn[20, 14] == pytest.approx((0.86, 0.10, 0.10))
    assert (drawn[32:, 34:] == 0.5).all()


# Prompts and their metadata


@pytest.mark.parametrize("tag", TASKS)
def test_metadata_lines_round_trip(tag: Task) -> None:
    for description in descriptions(tag, "validation"):
        assert PromptMetadata.from_line(description.metadata.to_line()) == description.metadata


# Splits


@pytest.mark.parametrize("tag", TASKS)
def test_splits_differ_in_prompts_wherever_that_is_possible(tag: Task) -> None:
    prompts = {split: {item.prompt for item in descriptions(tag, split)} for split in SPLITS}
    assert all(prompts.values())
    for one, other in combinations(SPLITS, 2):
        if tag in TASKS_SHARING_PROMPTS:
            assert prompts[one] == prompts[other]
        else:
            assert not prompts[one] & prompts[other]


def test_a_held_out_pair_is_held_out_in_both_orders_and_all_relations() -> None:
    homes: dict[frozenset[DescribedObject], set[Split]] = {}
    for split in SPLITS:
        for description in descriptions("position", split):
            homes.setdefault(frozenset(description.objects), set()).add(split)
    assert len(homes) == 66
    assert all(len(home) == 1 for home in homes.values())
    assert assign_split("two_object", DescribedObject("star"), DescribedObject("ring")) == assign_split(
        "two_object", DescribedObject("ring"), DescribedObject("star")
    )


@pytest.mark.parametrize("split", SPLITS)
def test_a_split_has_a_hundred_distinct_cases_a_task(split: Split) -> None:
    found = cases(split)
    assert Counter(case.description.tag for case in found) == dict.fromkeys(TASKS, CASES_PER_TASK)
    assert len({(case.description.prompt, case.image_index) for case in found}) == len(found)


def test_cases_repeat_a_prompt_only_when_all_had_their_turn() -> None:
    for tag in TASKS:
        repeats = Counter(case.description.prompt for case in cases("test") if case.description.tag == tag)
        assert max(repeats.values()) - min(repeats.values()) <= 1
        assert len(repeats) == min(CASES_PER_TASK, len(descriptions(tag, "test")))


@pytest.mark.parametrize(
    ("split", "digest"),
    [("training", "b2162bd3af0f1e2a"), ("validation", "b6d779927f2d3244"), ("test", "659e576ae4453a6e")],
)
def test_the_prompts_of_a_split_never_change(split: Split, digest: str) -> None:
    """Neither the test cases, on which figures are compared, nor the prompts that training samples."""
    prompts = [(case.description.metadata.to_line(), case.group(1, 2, split).seeds) for case in cases(split)]
    sampled = [(line.prompt, line.metadata, line.where) for line in sample_prompt_lines(200, split, 1)]
    assert hashlib.sha256(repr((prompts, sampled)).encode()).hexdigest()[:16] == digest


def rng() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def test_cases_are_of_the_test_and_samples_of_training_unless_told() -> None:
    case = cases("test")[-1]
    group = case.group(3, 2)
    assert (group.line, group.image_index) == (case.line, case.image_index)
    assert group.seeds == case.group(3, 2, "test").seeds != case.group(3, 2, "training").seeds
    assert sample_descriptions(9, rng()) == sample_descriptions(9, rng(), "training")


def test_equal_seeds_give_other_candidates_in_other_splits() -> None:
    seeds = {split_seed(split, seed) for split in SPLITS for seed in range(3)}
    assert len(seeds) == 9
    assert all(0 <= seed < 2**32 for seed in seeds)


# Coupling


def test_coupling_is_a_function_of_prompt_and_noise_alone() -> None:
    wanted = held_out(60).descriptions
    draws = noise(60, seed=3)
    together = couple(SceneConstraints.from_descriptions(wanted), draws)
    alone = [
        couple(SceneConstraints.from_descriptions([one]), draw_CHW[None])
        for one, draw_CHW in zip(wanted, draws, strict=True)
    ]
    for name in ("kind_NK", "color_NK", "center_NK2", "radius_NK", "present_NK", "background_N"):
        rows = torch.cat([getattr(scene, name) for scene in alone])
        assert torch.equal(getattr(together, name), rows), name


def test_what_a_prompt_leaves_open_varies_with_the_noise() -> None:
    scenes = render_scenes([Description("single_object", (DescribedObject("star"),))] * 500, seed=1).scenes
    colors = Counter(scenes.color_NK[:, 0].tolist())
    corners = Counter(tuple(corner) for corner in (scenes.center_NK2[:, 0] > IMAGE_SIZE / 2).tolist())
    assert len(colors) == len(COLOR_NAMES)
    assert min(colors.values()) > 20
    assert len(corners) == 4
    assert min(corners.values()) > 80
    assert ranges(scenes.radius_NK[:, 0]) == pytest.approx((MIN_RADIUS, MAX_RADIUS), abs=0.1)
    assert ranges(scenes.background_N) == pytest.approx(BACKGROUND_RANGE, abs=0.01)


def ranges(values: torch.Tensor) -> tuple[float, float]:
    return values.min().item(), values.max().item()


def test_what_a_prompt_says_does_not_vary() -> None:
    wanted = Description("color_attr", (DescribedObject("star", "pink"), DescribedObject("ring", "brown")))
    scenes = render_scenes([wanted] * 100, seed=1).scenes
    assert (scenes.color_NK[:, :2] == torch.tensor([COLOR_NAMES.index(name) for name in ("pink", "brown")])).all()
    assert (scenes.kind_NK[:, :2] == torch.tensor([KINDS.index(name) for name in ("star", "ring")])).all()
    assert (scenes.present_NK == torch.tensor([True, True, False, False])).all()


def test_objects_stay_apart_and_inside_the_image() -> None:
    drawn = held_out(600, seed=2)
    covers = torch.stack([coverage(drawn.scenes, slot) for slot in range(4)])
    assert (covers.sum(0) <= 1).all()
    edge = torch.cat([covers[..., 0], covers[..., -1], covers[..., 0, :], covers[..., -1, :]])
    assert not edge.any()


@pytest.mark.parametrize("relation", RELATIONS)
def test_relations_hold_by_the_rule_that_judges_them(relation: str) -> None:
    wanted = [item for item in descriptions("position", "training") if item.relation == relation]
    for first, second in render_scenes(wanted * 2, seed=4).ground_truth():
        assert relation in relative_position(first.box, second.box, threshold=0.1)


def test_every_scene_shows_what_its_prompt_asks_for() -> None:
    drawn = held_out(600, seed=5)
    for description, objects in zip(drawn.descriptions, drawn.ground_truth(), strict=True):
        verdict = evaluate_image(objects, description.metadata)
        assert verdict.correct, f"{description.prompt}: {verdict.reason}"
