"""Captions say what is in an image, all of it and nothing else, in words that are known beforehand."""

import random
import re
from collections import Counter

import numpy as np
import pytest
from PIL import Image

from forejudge.evaluators.geneval_rules import Box, Detection
from forejudge.miniature.captioner import CAPTION_WORDS, MiniatureCaptioner, caption_from_detections
from forejudge.miniature.detector import detect
from forejudge.miniature.scenes import COLOR_NAMES, KINDS
from forejudge.prompts.geneval import plural
from research.miniature.language_model import WORDS
from tests.support.scenes import held_out, single, to_uint8

Named = tuple[str, str | None, bool]  # kind, colour, whether it is clear

KNOWN_WORDS = {*WORDS, *CAPTION_WORDS}
COUNTS = {"a": 1, "an": 1, "one": 1, "two": 2, "three": 3, "four": 4, "five": 5, "six": 6}
SINGULAR = {word: kind for kind in KINDS for word in (kind, plural(kind))}
COUNT, COLOUR, NO_COLOR = rf"\b({'|'.join(COUNTS)}) ", f"({'|'.join(COLOR_NAMES)})", "of no clear colour"
OBJECTS = re.compile(rf"{COUNT}(unclear |faint )?(?:{COLOUR} )?({'|'.join(SINGULAR)})\b( {NO_COLOR})?")
SHARE = re.compile(rf"{COUNT}(?:{COLOUR} at|{NO_COLOR} at)")  # of objects that were counted before
CORNERS: dict[str, Box] = {
    "upper left": (8, 7, 26, 25),
    "upper right": (38, 9, 56, 27),
    "lower left": (6, 40, 24, 58),
    "lower right": (40, 38, 58, 56),
}


def named_in(caption: str) -> Counter[Named]:
    """The objects that a caption names."""
    found: Counter[Named] = Counter()
    for count, unclear, color, kind, no_colour in OBJECTS.findall(caption):
        if color or no_colour:
            found[SINGULAR[kind], color or None, not unclear] += COUNTS[count]
            continue
        shares = SHARE.findall(caption)
        assert sum(COUNTS[share] for share, _ in shares) == COUNTS[count], caption
        for share, share_colour in shares:
            found[SINGULAR[kind], share_colour or None, True] += COUNTS[share]
    return found


def shown_by(detections: list[Detection]) -> Counter[Named]:
    """The objects that a caption should name."""
    return Counter(
        (found.class_name, found.color, found.confidence > 0.9) for found in detections if found.confidence > 0.3
    )


def words(caption: str) -> set[str]:
    return set(re.findall(r"[^ ,.]+", caption))


def as_images(images: np.ndarray) -> list[Image.Image]:
    return [Image.fromarray(image) for image in to_uint8(images)]


def fake_detections(count: int, source: random.Random) -> list[Detection]:
    """Detections of few kinds and colours anywhere, so that many are equal."""
    colors = [None, *COLOR_NAMES[:2]]
    corners = [(source.uniform(0, 44), source.uniform(0, 44)) for _ in range(count)]
    return [
        Detection(
            source.choice(KINDS[:3]), (x, y, x + 18, y + 18), source.choice([0.2, 0.5, 0.99]), source.choice(colors)
        )
        for x, y in corners
    ]


def captions(*detections: Detection, count: int = 200) -> list[str]:
    return [caption_from_detections(detections, random.Random(seed)) for seed in range(count)]


def test_a_caption_names_what_was_drawn_in_scenes_of_every_task() -> None:
    drawn = held_out(300, seed=3)
    said = MiniatureCaptioner()(as_images(drawn.images))
    for caption, ground_truth in zip(said, drawn.ground_truth(), strict=True):
        assert named_in(caption) == shown_by(ground_truth), caption


def test_a_caption_names_every_detection_that_is_seen_and_no_other() -> None:
    source = random.Random(0)
    for _ in range(2000):
        detections = fake_detections(source.randrange(7), source)
        caption = caption_from_detections(detections, source)
        assert named_in(caption) == shown_by(detections), caption
        assert re.fullmatch(r"[a-z]+(,? [a-z]+)*\.", caption)


def test_captions_of_noisy_images_agree_with_the_detector_in_known_words() -> None:
    source = np.random.default_rng(0)
    sharp = held_out(300, seed=4).images
    ghosts = 0.55 + source.uniform(0.3, 1, (len(sharp), 1, 1, 1)) * (sharp - 0.55)
    images = as_images(ghosts + source.normal(0, 0.04, sharp.shape))
    said = MiniatureCaptioner()(images)
    for image, caption in zip(images, said, strict=True):
        assert named_in(caption) == shown_by(detect(image)), caption
        assert words(caption) <= KNOWN_WORDS
    assert any("unclear" in caption or "faint" in caption for caption in said)


def test_every_caption_word_is_used() -> None:
    source = random.Random(0)
    used = set().union(
        *(words(caption_from_detections(fake_detections(source.randrange(7), source), source)) for _ in range(2000))
    )
    crowd = [Detection("star", CORNERS["upper left"], 1.0, "red")] * 9
    for count in (5, 6, 9):
        used |= words(caption_from_detections(crowd[:count], source))
    assert set(CAPTION_WORDS) <= used <= KNOWN_WORDS


@pytest.mark.parametrize("corner", CORNERS)
def test_a_caption_says_where_an_object_stands(corner: str) -> None:
    said = captions(Detection("star", CORNERS[corner], 0.99, "red"))
    named = [other for caption in said for other in CORNERS if other in caption]
    assert set(named) == {corner}
    assert len(named) > len(said) / 2


def test_relations_are_those_of_the_image() -> None:
    star = Detection("star", CORNERS["upper left"], 0.99, "red")
    ring = Detection("ring", CORNERS["upper right"], 0.99, "blue")
    related = {caption for caption in captions(star, ring) if re.search(r"left of|right of|above|below", caption)}
    assert any("a red star left of a blue ring" in caption for caption in related)
    assert any("a blue ring right of a red star" in caption for caption in related)
    assert all("star left of" in caption or "ring right of" in caption for caption in related)


@pytest.mark.parametrize(
    ("confidence", "allowed"),
    [(0.95, {"a red star"}), (0.6, {"an unclear red star", "a faint red star"}), (0.2, {"nothing clear"})],
)
def test_a_caption_says_how_clear_an_object_is(confidence: float, allowed: set[str]) -> None:
    said = captions(Detection("star", CORNERS["upper left"], confidence, "red"))
    assert all(any(wording in caption for wording in allowed) for caption in said)
    assert all(any(wording in caption for caption in said) for wording in allowed)


def test_an_unclear_object_is_not_counted_among_the_clear() -> None:
    clear = [
        Detection("star", CORNERS["upper left"], 1.0, "red"),
        Detection("star", CORNERS["upper right"], 1.0, "blue"),
    ]
    said = captions(*clear, Detection("star", CORNERS["lower left"], 0.5, "green"))
    assert any("two stars, one red" in caption for caption in said)
    assert not any("three" in caption for caption in said)


def test_an_object_of_silent_h_keeps_its_article_without_a_colour() -> None:
    said = captions(Detection("hourglass", CORNERS["upper left"], 1.0, None))
    assert all("an hourglass of no clear colour" in caption for caption in said)


def test_an_empty_image_shows_nothing_clear() -> None:
    (caption,) = MiniatureCaptioner()([Image.new("RGB", (64, 64), (140, 140, 140))])
    assert "nothing clear" in caption


def test_equal_images_get_equal_captions_in_any_order() -> None:
    images = as_images(held_out(12).images)
    said = MiniatureCaptioner()(images)
    assert MiniatureCaptioner()([image.copy() for image in reversed(images)]) == said[::-1]


def test_images_that_show_the_same_are_worded_differently() -> None:
    images = [as_images(single("star", "red", background=0.5 + n / 400).images)[0] for n in range(40)]
    frames = {re.sub("upper|lower|left|right", "", caption) for caption in MiniatureCaptioner()(images)}
    assert len(frames) > 5


def test_captions_stay_short() -> None:
    source = random.Random(0)
    four = [caption_from_detections(fake_detections(4, source), source) for _ in range(500)]
    assert max(len(caption.split()) for caption in four) <= 40
