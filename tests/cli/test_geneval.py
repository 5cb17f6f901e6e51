import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from tests.support.command import CommandLine, refusal
from tests.support.geneval_layout import metadata_of, plain, put_prompt
from tests.support.scenes import as_bytes, single
from tests.support.tiny_clip import save_tiny_clip
from tests.support.tiny_detector import as_mmdetection_writes_it, tiny_mask2former

MINIATURE = ("--evaluator", "geneval-miniature")


def picture_of(kind: str, color: str) -> Image.Image:
    return Image.fromarray(as_bytes(single(kind, color).pictures)[0])


@pytest.fixture
def pictures(forejudge: CommandLine) -> Path:
    """Two of three are right."""
    folder = Path("pictures")
    put_prompt(folder, 0, metadata_of("star"), [picture_of("star", "red")])
    put_prompt(folder, 1, metadata_of("ring", "blue"), [picture_of("ring", "blue")])
    put_prompt(folder, 2, metadata_of("cross"), [picture_of("cross", "blue")])
    return folder


def test_a_folder_is_scored(forejudge: CommandLine, pictures: Path) -> None:
    outcome = forejudge("geneval", "score", pictures, *MINIATURE)
    assert outcome.status == 0, outcome
    said = " ".join(outcome.out.split())
    assert "colors 3 66.7" in said
    assert "micro, over images 3 66.7" in said
    assert "macro, over 1 tasks 3 66.7" in said
    assert "3 images of 3 prompts, judged by geneval-miniature" in said
    assert "results of each image: pictures/results.jsonl" in said
    lines = [json.loads(line) for line in (pictures / "results.jsonl").read_text().splitlines()]
    assert [line["correct"] for line in lines] == [True, True, False]
    assert lines[2]["reason"] == "expected red cross>=1, found 0 red; and 1 blue"
    assert {line["evaluator"] for line in lines} == {"geneval-miniature"}


def test_scores_as_json(forejudge: CommandLine, pictures: Path) -> None:
    outcome = forejudge("geneval", "score", pictures, *MINIATURE, "--json")
    summary = json.loads(outcome.out)
    assert summary["evaluator"] == "geneval-miniature"
    assert (summary["images"], summary["left_out"]) == (3, 0)
    assert summary["micro"]["estimate"] == summary["tasks"]["colors"]["estimate"] == pytest.approx(2 / 3, abs=1e-4)


def test_what_generate_writes_is_scored(generate: CommandLine) -> None:
    Path("prompts.jsonl").write_text(f"{metadata_of('star')}\n{metadata_of('ring')}\n")
    made = generate("generate", "--prompts", "prompts.jsonl", "--n", "2", "--images-per-prompt", "2", "--out", "made")
    assert made.status == 0, made
    outcome = CommandLine(generate.capture)("geneval", "score", "made", *MINIATURE, "--json")
    assert outcome.status == 0, outcome
    assert (json.loads(outcome.out)["images"], json.loads(outcome.out)["prompts"]) == (4, 2)


def test_what_cannot_be_judged_is_named_and_the_rest_is_scored(forejudge: CommandLine, pictures: Path) -> None:
    put_prompt(pictures, 3, metadata_of("star"), [plain("red")])
    put_prompt(pictures, 4, "{}", [plain("red")])
    put_prompt(pictures, 5, metadata_of("moon"), [])
    (pictures / "00002/samples/0000.png").write_bytes(b"no picture")
    outcome = forejudge("geneval", "score", pictures, *MINIATURE)
    assert outcome.status == 1
    lines = [line for line in outcome.err.splitlines() if not line.startswith("judged: ")]
    for line, path in zip(lines, ("00003", "00004", "00005", "00002"), strict=True):
        assert line.startswith(f"left out: pictures/{path}")
    assert "images left out: 4" in outcome.out
    assert "2 images of 2 prompts" in outcome.out


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["none", *MINIATURE], "none is no folder"),
        (["pictures/00000", *MINIATURE], "holds no pictures in GenEval's layout"),
        (["pictures"], "the evaluator geneval needs its detector: make it once"),
        (["pictures", *MINIATURE, "--detector", "eyes"], "go with the evaluator geneval"),
        (["pictures", "--evaluator", "nonesuch"], "unknown evaluator 'nonesuch'"),
        (["pictures", "--detector", "eyes", "--device", "quantum"], "device 'quantum' is not available here"),
    ],
)
def test_what_cannot_be_scored_is_refused(
    forejudge: CommandLine, pictures: Path, arguments: list[str], said: str
) -> None:
    assert said in refusal(forejudge("geneval", "score", *arguments), 2)
    assert not (pictures / "results.jsonl").exists()


def test_a_detector_that_is_none_ends_it_in_one_line(forejudge: CommandLine, pictures: Path) -> None:
    assert "eyes is no folder, nor a hub id" in refusal(
        forejudge("geneval", "score", pictures, "--detector", "eyes"), 1
    )


def test_a_converted_detector_judges(forejudge: CommandLine) -> None:
    torch.save({"state_dict": as_mmdetection_writes_it(tiny_mask2former(), Path("named"))}, "weights.pth")
    converted = forejudge("geneval", "convert-detector", "weights.pth", "eyes")
    assert converted.status == 0, converted
    assert converted.out == "written to eyes\n"
    assert "weights.pth is not the file that GenEval uses: figures with it are not comparable" in converted.err
    save_tiny_clip(Path("colors"))
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (16, 16, 3), np.uint8))
    put_prompt(Path("pictures"), 0, metadata_of("bench"), [noise])
    outcome = forejudge(
        "geneval", "score", "pictures", "--detector", "eyes", "--color-model", "colors", "--device", "cpu"
    )
    assert outcome.status == 0, outcome
    (line,) = Path("pictures/results.jsonl").read_text().splitlines()
    judged_by = json.loads(line)["evaluator"]
    assert judged_by.startswith("geneval (detector weights.pth ")
    assert judged_by.endswith("), not comparable with GenEval's figures")
    assert judged_by in outcome.out


def test_weights_that_are_none_are_refused(forejudge: CommandLine) -> None:
    assert "weights.pth is missing" in refusal(forejudge("geneval", "convert-detector", "weights.pth", "eyes"), 1)
    assert not Path("eyes").exists()


def test_label_takes_geneval_too(forejudge: CommandLine) -> None:
    Path("prompts.jsonl").write_text(metadata_of("bench"))
    outcome = forejudge(
        "label", "--generator", "none", "--prompts", "prompts.jsonl", "--evaluator", "geneval", "--out", "out"
    )
    assert "give --detector FOLDER" in refusal(outcome, 2)
