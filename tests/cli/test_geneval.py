import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from tests.support.command import CommandLine, refusal
from tests.support.geneval_layout import metadata_line, solid_image, write_prompt_folder
from tests.support.scenes import single, to_uint8
from tests.support.tiny_clip import save_tiny_clip
from tests.support.tiny_detector import tiny_mask2former, to_mmdetection_state_dict

MINIATURE = ("--evaluator", "geneval-miniature")


def image_of(kind: str, color: str) -> Image.Image:
    return Image.fromarray(to_uint8(single(kind, color).images)[0])


@pytest.fixture
def images(forejudge: CommandLine) -> Path:
    """Two of three are right."""
    folder = Path("images")
    write_prompt_folder(folder, 0, metadata_line("star"), [image_of("star", "red")])
    write_prompt_folder(folder, 1, metadata_line("ring", "blue"), [image_of("ring", "blue")])
    write_prompt_folder(folder, 2, metadata_line("cross"), [image_of("cross", "blue")])
    return folder


def test_a_folder_is_scored(forejudge: CommandLine, images: Path) -> None:
    outcome = forejudge("geneval", "score", images, *MINIATURE)
    assert outcome.status == 0, outcome
    said = " ".join(outcome.out.split())
    assert "colors 3 66.7" in said
    assert "micro, over images 3 66.7" in said
    assert "macro, over 1 tasks 3 66.7" in said
    assert "3 images of 3 prompts, evaluated by geneval-miniature" in said
    assert "results of each image: images/results.jsonl" in said
    lines = [json.loads(line) for line in (images / "results.jsonl").read_text().splitlines()]
    assert [line["correct"] for line in lines] == [True, True, False]
    assert lines[2]["reason"] == "expected red cross>=1, found 0 red; and 1 blue"
    assert {line["evaluator"] for line in lines} == {"geneval-miniature"}


def test_scores_as_json(forejudge: CommandLine, images: Path) -> None:
    outcome = forejudge("geneval", "score", images, *MINIATURE, "--json")
    summary = json.loads(outcome.out)
    assert summary["evaluator"] == "geneval-miniature"
    assert (summary["images"], summary["left_out"]) == (3, 0)
    assert summary["micro"]["estimate"] == summary["tasks"]["colors"]["estimate"] == pytest.approx(2 / 3, abs=1e-4)


def test_what_generate_writes_is_scored(generate: CommandLine) -> None:
    Path("prompts.jsonl").write_text(f"{metadata_line('star')}\n{metadata_line('ring')}\n")
    made = generate("generate", "--prompts", "prompts.jsonl", "--n", "2", "--images-per-prompt", "2", "--out", "made")
    assert made.status == 0, made
    outcome = CommandLine(generate.capture)("geneval", "score", "made", *MINIATURE, "--json")
    assert outcome.status == 0, outcome
    assert (json.loads(outcome.out)["images"], json.loads(outcome.out)["prompts"]) == (4, 2)


def test_what_cannot_be_judged_is_named_and_the_rest_is_scored(forejudge: CommandLine, images: Path) -> None:
    write_prompt_folder(images, 3, metadata_line("star"), [image_of("star", "red")])
    write_prompt_folder(images, 4, "{}", [solid_image("red")])
    write_prompt_folder(images, 5, metadata_line("moon"), [])
    (images / "00002/samples/0000.png").write_bytes(b"no image")
    outcome = forejudge("geneval", "score", images, *MINIATURE)
    assert outcome.status == 1
    lines = [line for line in outcome.err.splitlines() if not line.startswith("evaluated: ")]
    for line, path in zip(lines, ("00003", "00004", "00005", "00002"), strict=True):
        assert line.startswith(f"left out: images/{path}")
    assert "images left out: 4" in outcome.out
    assert "2 images of 2 prompts" in outcome.out


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["none", *MINIATURE], "none is no folder"),
        (["images/00000", *MINIATURE], "holds no images in GenEval's layout"),
        (["images"], "the evaluator geneval needs its detector: convert it once"),
        (["images", *MINIATURE, "--detector", "eyes"], "go with the evaluator geneval"),
        (["images", "--evaluator", "nonesuch"], "unknown evaluator 'nonesuch'"),
        (["images", "--detector", "eyes", "--device", "quantum"], "device 'quantum' is not available here"),
    ],
)
def test_what_cannot_be_scored_is_refused(
    forejudge: CommandLine, images: Path, arguments: list[str], said: str
) -> None:
    assert said in refusal(forejudge("geneval", "score", *arguments), 2)
    assert not (images / "results.jsonl").exists()


def test_a_class_that_the_detector_does_not_know_has_no_score(forejudge: CommandLine) -> None:
    write_prompt_folder(Path("zebras"), 0, metadata_line("zebra"), [solid_image("red")])
    outcome = forejudge("geneval", "score", "zebras", *MINIATURE)
    assert outcome.status == 2
    assert "left out: zebras/00000/metadata.jsonl: the detector knows no 'zebra'" in outcome.err
    assert outcome.err.endswith("error: no image could be evaluated\n")


def test_a_detector_that_is_none_ends_it_in_one_line(forejudge: CommandLine, images: Path) -> None:
    assert "eyes is no folder, nor a hub id" in refusal(forejudge("geneval", "score", images, "--detector", "eyes"), 1)


def test_a_converted_detector_judges(forejudge: CommandLine) -> None:
    torch.save({"state_dict": to_mmdetection_state_dict(tiny_mask2former(), Path("named"))}, "weights.pth")
    converted = forejudge("geneval", "convert-detector", "weights.pth", "eyes")
    assert converted.status == 0, converted
    assert converted.out == "written to eyes\n"
    assert "weights.pth is not the file that GenEval uses: scores with it are not comparable" in converted.err
    save_tiny_clip(Path("colors"))
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (16, 16, 3), np.uint8))
    write_prompt_folder(Path("images"), 0, metadata_line("bench"), [noise])
    outcome = forejudge(
        "geneval", "score", "images", "--detector", "eyes", "--color-model", "colors", "--device", "cpu"
    )
    assert outcome.status == 0, outcome
    (line,) = Path("images/results.jsonl").read_text().splitlines()
    observer_name = json.loads(line)["evaluator"]
    assert observer_name.startswith("geneval (detector weights.pth ")
    assert observer_name.endswith("), not comparable with GenEval's figures")
    assert observer_name in outcome.out


def test_weights_that_are_none_are_refused(forejudge: CommandLine) -> None:
    assert "weights.pth is missing" in refusal(forejudge("geneval", "convert-detector", "weights.pth", "eyes"), 1)
    assert not Path("eyes").exists()


def test_label_takes_geneval_too(forejudge: CommandLine) -> None:
    Path("prompts.jsonl").write_text(metadata_line("bench"))
    outcome = forejudge(
        "label", "--generator", "none", "--prompts", "prompts.jsonl", "--evaluator", "geneval", "--out", "out"
    )
    assert "give --detector FOLDER" in refusal(outcome, 2)
