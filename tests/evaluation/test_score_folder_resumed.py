import json
from collections.abc import Sequence
from pathlib import Path

import pytest
from PIL import Image

from forejudge.errors import CheckpointError, CommandFailed, InvalidRequest, OutputError
from forejudge.evaluation.score_folder import score_folder
from forejudge.evaluators.base import Evaluation, Evaluator
from forejudge.evaluators.geneval_rules import Detection
from forejudge.progress import Progress, ignore_progress
from forejudge.prompts.prompt_file import PromptLine
from tests.support.geneval_layout import metadata_line, solid_image, write_prompt_folder

RED, BLUE = solid_image("red"), solid_image("blue")


class LooksAtACorner(Evaluator):
    """Evaluator that calls red right, counts its images and fails after `fails_after`."""

    def __init__(self, name: str = "corner", fails_after: int = 1000) -> None:
        self.name, self.shown, self.fails_after = name, 0, fails_after

    def __call__(self, lines: Sequence[PromptLine], images: Sequence[Image.Image]) -> list[Evaluation]:
        self.shown += len(images)
        if self.shown > self.fails_after:
            raise CommandFailed("no more")
        reds = [image.getpixel((0, 0)) == (255, 0, 0) for image in images]
        seen = tuple(Detection("star", (0.0, 0.0, 8.0, 8.0), confidence) for confidence in (0.5, 0.25))
        return [Evaluation(red, "" if red else "not red", seen) for red in reds]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_prompt_folder(tmp_path, 0, metadata_line("star"), [RED, RED, BLUE])
    write_prompt_folder(tmp_path, 1, metadata_line("ring"), [RED, BLUE, BLUE])
    write_prompt_folder(tmp_path, 2, metadata_line("ring", tag="single_object"), [BLUE] * 3)
    return tmp_path


def lines_of(folder: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in (folder / "results.jsonl").read_text().splitlines()]


def test_every_image_has_a_line_of_genevals_results(folder: Path) -> None:
    score_folder(folder, LooksAtACorner(), ignore_progress)
    lines = lines_of(folder)
    assert len(lines) == 9
    assert {name: value for name, value in lines[2].items() if name != "sha256"} == {
        "filename": "00000/samples/0002.png",
        "tag": "colors",
        "prompt": "a photo of a red star",
        "correct": False,
        "reason": "not red",
        "metadata": metadata_line("star"),
        "details": '{"star": [[0.0, 0.0, 8.0, 8.0, 0.5]]}',
        "evaluator": "corner",
    }


def test_scores_are_shares_of_images_and_of_tasks(folder: Path) -> None:
    summary = score_folder(folder, LooksAtACorner(), ignore_progress).summary()
    assert {name: getattr(summary, name) for name in ("evaluator", "images", "prompts", "left_out")} == {
        "evaluator": "corner",
        "images": 9,
        "prompts": 3,
        "left_out": 0,
    }
    assert summary.micro.estimate == pytest.approx(3 / 9, abs=1e-4)
    assert summary.macro.estimate == pytest.approx((3 / 6 + 0) / 2)
    assert summary.micro.low < summary.micro.estimate < summary.micro.high
    assert {task: (score.images, score.estimate) for task, score in summary.tasks.items()} == {
        "single_object": (3, 0.0),
        "colors": (6, 0.5),
    }


def test_a_stopped_run_goes_on_where_it_was(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(CommandFailed):
        score_folder(folder, LooksAtACorner(fails_after=8), ignore_progress)
    assert len(lines_of(folder)) == 8
    with (folder / "results.jsonl").open("a") as file:
        file.write('{"filename": "00002/sam')  # torn by a kill
    again = LooksAtACorner()
    stands: list[Progress] = []
    score_folder(folder, again, stands.append)
    assert again.shown == 1
    assert [(stand.step, stand.steps) for stand in stands] == [(9, 9)]
    resumed = lines_of(folder)
    (folder / "results.jsonl").unlink()
    score_folder(folder, LooksAtACorner(), ignore_progress)
    assert resumed == lines_of(folder)


def test_what_is_judged_is_not_judged_again_unless_it_changed(folder: Path) -> None:
    score_folder(folder, LooksAtACorner(), ignore_progress)
    again = LooksAtACorner()
    score_folder(folder, again, ignore_progress)
    assert again.shown == 0
    RED.save(folder / "00002/samples/0001.png")
    (folder / "00001/metadata.jsonl").write_text(metadata_line("cross"))
    (folder / "00000/samples/0002.png").unlink()
    scored = score_folder(folder, again, ignore_progress)
    assert again.shown == 4
    assert [each.filename for each in scored.results].count("00002/samples/0001.png") == 1
    assert [line["filename"] for line in lines_of(folder)] == [each.filename for each in scored.results]
    assert [line["prompt"] for line in lines_of(folder)[2:5]] == ["a photo of a red cross"] * 3


def test_images_that_cannot_be_opened_are_left_out(folder: Path) -> None:
    (folder / "00000/samples/0001.png").write_bytes(b"no image")
    whole = (folder / "00001/samples/0000.png").read_bytes()
    (folder / "00001/samples/0000.png").write_bytes(whole[:40])
    scored = score_folder(folder, LooksAtACorner(), ignore_progress)
    assert scored.summary().left_out == 2
    assert scored.summary().images == len(lines_of(folder)) == 7
    for each, name in zip(scored.left_out, ("00000/samples/0001.png", "00001/samples/0000.png"), strict=True):
        assert each.reason.startswith(f"{folder}/{name} cannot be opened (")
        assert "\n" not in each.reason


def test_an_image_is_shown_as_its_camera_says(tmp_path: Path) -> None:
    image = solid_image("blue")
    image.paste((255, 0, 0), (7, 0, 8, 1))
    turned = Image.Exif()
    turned[0x0112] = 2  # mirrored
    prompt = write_prompt_folder(tmp_path, 0, metadata_line("star"), [])
    image.save(prompt / "samples" / "0000.png", exif=turned)
    assert score_folder(tmp_path, LooksAtACorner(), ignore_progress).results[0].correct


def test_results_of_another_evaluator_are_refused(folder: Path) -> None:
    score_folder(folder, LooksAtACorner(), ignore_progress)
    before = (folder / "results.jsonl").read_text()
    other = LooksAtACorner("eyes")
    with pytest.raises(InvalidRequest, match=r"results\.jsonl holds results of corner, this is eyes: rename"):
        score_folder(folder, other, ignore_progress)
    assert other.shown == 0
    assert (folder / "results.jsonl").read_text() == before


def test_a_file_of_another_program_is_kept(folder: Path) -> None:
    (folder / "results.jsonl").write_text('{"filename": "a", "correct": true}')
    with pytest.raises(CheckpointError, match="remove this line, or rename the file"):
        score_folder(folder, LooksAtACorner(), ignore_progress)
    assert (folder / "results.jsonl").read_text() == '{"filename": "a", "correct": true}'


def test_without_any_result_there_is_no_score(tmp_path: Path) -> None:
    write_prompt_folder(tmp_path, 0, '{"prompt": "a star"}', [RED])
    scored = score_folder(tmp_path, LooksAtACorner(), ignore_progress)
    assert len(scored.left_out) == 1
    with pytest.raises(InvalidRequest, match="no image could be evaluated"):
        scored.summary()


def test_a_folder_that_cannot_be_written_to_is_scored_with_a_warning(
    folder: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(path: Path) -> None:
        raise OutputError(f"{path} cannot be written")

    monkeypatch.setattr("forejudge.files.prepare_folder", refuse)
    scored = score_folder(folder, LooksAtACorner(), ignore_progress)
    assert len(scored.results) == 9
    assert caplog.messages == [f"results are shown and not kept: {folder} cannot be written"]
    assert not (folder / "results.jsonl").exists()
