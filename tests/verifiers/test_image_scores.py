"""Verifiers of finished images: CLIPScore, and functions of the user's."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from transformers import CLIPModel

from forejudge import BestOfN
from forejudge.errors import CheckpointError, InvalidRequest
from forejudge.generators import load_generator
from forejudge.types import IMAGE, Candidates
from forejudge.verifiers import load_verifier
from forejudge.verifiers.image_scores import ImageScoreVerifier
from research.miniature.clip import caption_tokenizer, clip_image_processor, new_clip
from tests.support.doubles import ScriptedGenerator

CPU = torch.device("cpu")
IMAGES = tuple(Image.new("RGB", (64, 64), (80 * shade, 90, 10)) for shade in range(3))
CANDIDATES = Candidates((0, 1, 2), IMAGE, {IMAGE: IMAGES}, None)


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("clip")
    torch.manual_seed(0)
    tokenizer = caption_tokenizer()
    for part in (new_clip(tokenizer, 32, 1), tokenizer, clip_image_processor()):
        part.save_pretrained(folder)
    return folder


def test_clipscore_is_the_cosine_of_its_embeddings(clip: Path) -> None:
    verifier = load_verifier(f"clipscore:{clip}", CPU, torch.float32)
    model = CLIPModel.from_pretrained(clip).eval()
    text = caption_tokenizer()("a red star", return_tensors="pt")
    for image, verdict in zip(IMAGES, verifier.score("a red star", CANDIDATES), strict=True):
        pixels = clip_image_processor()(image, return_tensors="pt").pixel_values
        with torch.no_grad():
            shown = model(**text, pixel_values=pixels)
        expected = torch.cosine_similarity(shown.image_embeds, shown.text_embeds)
        assert verdict.score == pytest.approx(float(expected), abs=1e-5)
        assert verdict.probability is None


def test_a_prompt_longer_than_clip_takes_is_truncated(clip: Path) -> None:
    verifier = load_verifier(f"clipscore:{clip}", CPU, torch.float32)
    assert len(verifier.score("star " * 200, CANDIDATES)) == 3


def test_the_digest_depends_on_clip_s_weights(clip: Path, tmp_path: Path) -> None:
    other = CLIPModel.from_pretrained(clip)
    torch.nn.init.ones_(other.visual_projection.weight)
    for part in (other, caption_tokenizer(), clip_image_processor()):
        part.save_pretrained(tmp_path)
    (tmp_path / "x").symlink_to(clip)
    digests = {load_verifier(f"clipscore:{folder}", CPU, torch.float32).digest for folder in (clip, tmp_path)}
    assert len(digests) == 2


def test_a_function_picks_from_finished_images(
    tiny_generator: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "my_scores.py").write_text(
        "def redness(prompt, images):\n"
        "    return [image.convert('RGB').resize((1, 1)).getpixel((0, 0))[0] for image in images]\n"
    )
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    generator = load_generator(str(tiny_generator), CPU, torch.float32)
    result = BestOfN(generator, load_verifier("my_scores:redness", CPU, torch.float32))("a star", n=4, top_k=4)
    scores = [candidate.score for candidate in result.record.candidates]
    assert result.record.winner == scores.index(max(scores))
    assert result.record.passed is None


@pytest.mark.parametrize("name", ["no_such_module:score", "forejudge.errors:no_such_function"])
def test_a_function_that_cannot_be_imported_is_refused(name: str) -> None:
    with pytest.raises(InvalidRequest, match=f"verifier '{name}' cannot be imported"):
        load_verifier(name, CPU, torch.float32)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("math:pi", "verifier math:pi is a float: expected a function of a prompt and images"),
        ("math:sqrt", "verifier math:sqrt cannot be called with a prompt and images"),
        ("os.path:commonpath", "verifier os.path:commonpath cannot be called"),
    ],
)
def test_what_is_no_function_of_prompt_and_images_is_refused_when_loaded(name: str, said: str) -> None:
    with pytest.raises(InvalidRequest, match=said):
        load_verifier(name, CPU, torch.float32)


@pytest.mark.parametrize("returned", [None, 3, ["good"] * 3, KeyError("weights"), RuntimeError("shapes differ")])
def test_a_function_that_fails_is_named(returned: Any) -> None:
    def says(prompt: str, images: Sequence[Image.Image]) -> Any:
        if isinstance(returned, Exception):
            raise returned
        return returned

    with pytest.raises(InvalidRequest, match=r"verifier says failed with \w+: .*; expected one finite number for each"):
        ImageScoreVerifier(says, "says").score("a star", CANDIDATES)


def test_a_function_that_runs_out_of_memory_gets_smaller_batches() -> None:
    sizes: list[int] = []

    def says(prompt: str, images: Sequence[Image.Image]) -> list[float]:
        sizes.append(len(images))
        if len(images) > 2:
            raise torch.OutOfMemoryError
        return [0.0] * len(images)

    BestOfN(ScriptedGenerator(), ImageScoreVerifier(says, "says"))("a star", n=4)
    assert sizes == [4, 2, 2]


def test_a_folder_without_clip_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError):
        load_verifier(f"clipscore:{tmp_path}", CPU, torch.float32)


@pytest.mark.parametrize("scores", [[1.0], [1.0, 2.0, float("nan")]])
def test_invalid_scores_are_refused(scores: list[float]) -> None:
    def says(prompt: str, images: Sequence[Image.Image]) -> list[float]:
        return scores

    with pytest.raises(InvalidRequest, match="for 3 images: expected one finite number each"):
        ImageScoreVerifier(says, "says").score("a star", CANDIDATES)
