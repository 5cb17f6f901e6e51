"""The detector sees what was drawn, through mild blur and noise too, and is honest about what was half drawn."""

from collections import Counter

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from forejudge.errors import InvalidRequest
from forejudge.evaluators.geneval_rules import Box, Detection, evaluate_image
from forejudge.miniature.detector import detect
from forejudge.miniature.scenes import KINDS
from tests.support.scenes import Images, RenderedScenes, held_out, single, to_uint8

SEEN, PLAIN = 0.3, 0.9  # GenEval's thresholds: seen at all, and certain enough to be counted


@pytest.fixture(scope="module")
def few() -> RenderedScenes:
    return held_out(240, seed=1)


def iou(one: Box, other: Box) -> float:
    widths = [max(0.0, min(a[2], b[2]) - max(a[0], b[0])) for a, b in ((one, other), (one, one), (other, other))]
    heights = [max(0.0, min(a[3], b[3]) - max(a[1], b[1])) for a, b in ((one, other), (one, one), (other, other))]
    shared, area, other_area = (width * height for width, height in zip(widths, heights, strict=True))
    return shared / (area + other_area - shared)


def agree(ground_truth: list[Detection], found: list[Detection]) -> bool:
    """Each true object is found once with its class, colour and box, and nothing else is."""
    left = list(found)
    for wanted in ground_truth:
        same = [
            each
            for each in left
            if (each.class_name, each.color) == (wanted.class_name, wanted.color) and iou(each.box, wanted.box) > 0.7
        ]
        if not same:
            return False
        left.remove(same[0])
    return not left


def agreement(drawn: RenderedScenes, images: Images) -> float:
    """The share of images that are read right whichever of GenEval's two thresholds is taken."""
    return float(
        np.mean(
            [
                agree(ground_truth, found) and all(each.confidence > PLAIN for each in found)
                for ground_truth, found in zip(drawn.ground_truth(), map(seen, images), strict=True)
            ]
        )
    )


def seen(image: Images) -> list[Detection]:
    return above(SEEN, image)


def above(confidence: float, image: Images) -> list[Detection]:
    return [detection for detection in detect(image) if detection.confidence > confidence]


def share_with_any(images: NDArray[np.floating], confidence: float) -> float:
    return float(np.mean([bool(above(confidence, image)) for image in to_uint8(images)]))


def worn(drawn: RenderedScenes, blur: float, noise: float, cast: float) -> Images:
    """Blur images, add noise and shift the colors of each."""
    source = np.random.default_rng(0)
    soft = np.stack([cv2.GaussianBlur(image, (0, 0), blur) for image in drawn.images])
    casts = source.normal(size=(len(soft), 1, 1, 3))
    casts *= cast / np.linalg.norm(casts, axis=-1, keepdims=True)
    return to_uint8(soft + casts + noise * source.normal(size=soft.shape))


# What was drawn


def test_rendered_scenes_are_read_as_they_were_drawn() -> None:
    scenes = held_out(400)
    assert agreement(scenes, to_uint8(scenes.images)) >= 0.995


@pytest.mark.parametrize(
    ("blur", "noise", "cast"), [pytest.param(0.7, 0.02, 0.0, marks=pytest.mark.slow), (0.8, 0.03, 0.06)]
)
def test_mild_blur_noise_and_colour_cast_change_little(
    few: RenderedScenes, blur: float, noise: float, cast: float
) -> None:
    assert agreement(few, worn(few, blur, noise, cast)) >= 0.97


def test_every_scene_is_judged_correct_by_what_is_detected(few: RenderedScenes) -> None:
    images = worn(few, blur=0.5, noise=0.02, cast=0.03)
    for description, image in zip(few.descriptions, images, strict=True):
        verdict = evaluate_image(detect(image), description.metadata)
        assert verdict.correct, f"{description.prompt}: {verdict.reason}"


@pytest.mark.parametrize("kind", KINDS)
def test_a_mask_and_its_box_lie_on_the_object(kind: str) -> None:
    drawn = single(kind, radius=9.3)
    ((true,),) = drawn.ground_truth()
    (found,) = detect(to_uint8(drawn.images)[0])
    assert found.mask is not None
    assert true.mask is not None
    assert (true.mask <= found.mask).all()
    assert true.mask.sum() > 0.75 * found.mask.sum()
    rows, columns = np.nonzero(found.mask)
    assert found.box == (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)


def test_two_colours_that_touch_are_two_objects() -> None:
    left, right = single("square", "red", x=23.5), single("circle", "yellow", x=40.5)
    both = np.where(right.images[0] == 0.55, left.images[0], right.images[0])
    found = above(PLAIN, to_uint8(both))
    assert Counter((each.class_name, each.color) for each in found) == {("square", "red"): 1, ("circle", "yellow"): 1}


def test_a_colour_that_the_palette_lacks_has_no_name() -> None:
    blue = single("star", "blue", background=0.5).images[0]
    cover = (0.5 - blue[..., :1]) / 0.4
    (found,) = detect(to_uint8(0.5 + cover * (np.array([0.0, 0.85, 0.85]) - 0.5)))
    assert found.class_name == "star"
    assert found.color is None


# What was drawn by half


@pytest.mark.parametrize("opacity", [0.15, 0.3, 0.5])
def test_a_ghost_is_no_object(few: RenderedScenes, opacity: float) -> None:
    background = few.scenes.background_N.numpy()[:, None, None, None]
    assert share_with_any(background + opacity * (few.images - background), SEEN) == 0


def test_a_ghost_takes_nothing_from_the_object_beside_it() -> None:
    solid, ghost = single("star", "red", x=16.0), single("star", "red", x=48.0)
    image = solid.images[0] + 0.4 * (ghost.images[0] - 0.55)
    (found,) = detect(to_uint8(image))
    assert found.confidence > PLAIN
    assert found.box[2] < 32


@pytest.mark.parametrize("shift", [6, 8, 12, 30])
def test_two_half_transparent_doubles_are_not_counted(shift: int) -> None:
    doubles = [
        (single(kind, x=32 - shift / 2).images[0] + single(kind, x=32 + shift / 2).images[0]) / 2 for kind in KINDS
    ]
    assert share_with_any(np.stack(doubles), PLAIN) == 0
    assert share_with_any(np.stack(doubles), SEEN) <= 0.1


def test_half_of_one_scene_and_half_of_another_show_nothing() -> None:
    one, other = held_out(300, seed=3), held_out(300, seed=4)
    order = np.random.default_rng(0).permutation(300)
    assert share_with_any((one.images + other.images[order]) / 2, PLAIN) < 0.06


def test_an_outline_between_two_kinds_is_not_counted() -> None:
    shapes = [single(kind).images[0] for kind in KINDS]
    blends = [(one + other) / 2 for row, one in enumerate(shapes) for other in shapes[:row]]
    assert share_with_any(np.stack(blends), PLAIN) < 0.05


# Half a diamond is a triangle and half a crescent a smaller one, so they are not asked for here.
@pytest.mark.parametrize("kind", sorted({*KINDS} - {"diamond", "moon"}))
def test_half_an_object_is_not_counted(kind: str) -> None:
    image = single(kind, radius=10.0).images[0]
    upper, left = image.copy(), image.copy()
    upper[32:], left[:, 32:] = 0.55, 0.55
    for half in (upper, left):
        assert above(PLAIN, to_uint8(half)) == []


def test_nothing_is_seen_on_an_empty_background() -> None:
    greys = np.arange(0, 256, 3) / 255
    assert share_with_any(np.broadcast_to(greys[:, None, None, None], (len(greys), 64, 64, 3)), 0) == 0


def test_nothing_is_seen_on_a_mottled_background() -> None:
    spots = np.random.default_rng(0).normal(size=(50, 64, 64, 3))
    smooth = np.stack([cv2.GaussianBlur(each, (0, 0), 3) for each in spots])
    greys = np.linspace(0.3, 0.8, 50)[:, None, None, None]
    assert share_with_any(greys + 0.04 * smooth / smooth.std(), SEEN) == 0


@pytest.mark.parametrize("deviation", [0.1, 0.3, 1.0])
def test_nothing_is_seen_in_noise(deviation: float) -> None:
    noise = np.random.default_rng(0).normal(0.5, deviation, size=(50, 64, 64, 3))
    assert share_with_any(noise, 0) == 0


# What it is given


def test_an_image_and_its_bytes_are_read_alike() -> None:
    image = to_uint8(single("heart").images)[0]
    assert detect(Image.fromarray(image)) == detect(image) != []


def test_other_sizes_and_modes_are_read_too() -> None:
    wide = np.full((70, 120, 3), 140, np.uint8)
    wide[3:67, 50:114] = to_uint8(single("ring", "white", background=140 / 255).images)[0]
    (found,) = detect(Image.fromarray(wide).convert("L"))
    assert (found.class_name, found.color) == ("ring", "white")
    assert found.mask is not None
    assert found.mask.shape == (70, 120)
    assert iou(found.box, (72, 25, 92, 45)) > 0.9


@pytest.mark.parametrize("array", [np.zeros((64, 64), np.uint8), np.zeros((64, 64, 3)), np.zeros((0, 64, 3), np.uint8)])
def test_what_is_no_image_is_refused(array: NDArray) -> None:
    with pytest.raises(InvalidRequest, match=r"expected \(height, width, 3\) and uint8"):
        detect(array)


def test_the_most_confident_comes_first(few: RenderedScenes) -> None:
    for image in worn(few, blur=1.2, noise=0.03, cast=0.06)[-50:]:
        found = [detection.confidence for detection in detect(image)]
        assert found == sorted(found, reverse=True)
        assert all(0 <= confidence <= 1 for confidence in found)
