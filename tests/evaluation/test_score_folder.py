from collections.abc import Sequence
from pathlib import Path

import pytest

from forejudge.errors import InvalidRequest
from forejudge.evaluation.score_folder import LeftOut, find_images
from forejudge.prompts.prompt_file import PromptLine
from tests.support.geneval_layout import metadata_line, solid_image, write_prompt_folder

BLUE = solid_image("blue")


def accept(lines: Sequence[PromptLine]) -> None:
    assert len(lines) == 1


def names(folder: Path) -> tuple[list[str], list[LeftOut]]:
    given, left_out = find_images(folder, accept)
    return [image.path.relative_to(folder).as_posix() for image in given], left_out


def test_images_are_found_as_genevals_evaluator_finds_them(tmp_path: Path) -> None:
    """Folders and files have digits for names; whatever else lies there is passed over."""
    write_prompt_folder(tmp_path, 1, metadata_line("star"), [BLUE] * 2)
    first = write_prompt_folder(tmp_path, 0, metadata_line("ring"), [BLUE])
    BLUE.save(first / "samples" / "7.jpg")
    BLUE.save(first / "grid.png")
    BLUE.save(first / "samples" / "best.png")
    BLUE.save(first / "samples" / "0002.webp")
    (first / "results").mkdir()
    write_prompt_folder(tmp_path / "notes", 2, "", [])
    (tmp_path / "settings.json").touch()
    found, left_out = names(tmp_path)
    assert found == [
        "00000/samples/0000.png",
        "00000/samples/7.jpg",
        "00001/samples/0000.png",
        "00001/samples/0001.png",
    ]
    assert left_out == []


def test_each_image_has_its_prompt(tmp_path: Path) -> None:
    write_prompt_folder(tmp_path, 0, metadata_line("star"), [BLUE])
    ((image,), _) = find_images(tmp_path, accept)
    assert image.line.prompt == image.metadata.prompt == "a photo of a red star"
    assert image.line.metadata == metadata_line("star")


def test_missing_images_are_counted(tmp_path: Path) -> None:
    write_prompt_folder(tmp_path, 0, metadata_line("star"), [BLUE] * 4)
    write_prompt_folder(tmp_path, 1, metadata_line("ring"), [BLUE])
    (write_prompt_folder(tmp_path, 2, metadata_line("cross"), []) / "samples").rmdir()
    found, left_out = names(tmp_path)
    assert len(found) == 5
    assert left_out == [
        LeftOut(f"{tmp_path}/00001/samples holds 1 of 4 images, as many as other prompts have", 3),
        LeftOut(f"{tmp_path}/00002/samples holds 0 of 4 images, as many as other prompts have", 4),
    ]


def test_prompts_that_cannot_be_judged_by_are_left_out(tmp_path: Path) -> None:
    write_prompt_folder(tmp_path, 0, metadata_line("star"), [BLUE])
    write_prompt_folder(tmp_path, 1, metadata_line("star"), [BLUE])
    write_prompt_folder(tmp_path, 2, metadata_line("star", color="mauve"), [BLUE])
    write_prompt_folder(tmp_path, 3, '{"prompt": "a star"}', [BLUE])
    write_prompt_folder(tmp_path, 4, "", [BLUE])
    write_prompt_folder(tmp_path, 5, '{"tag": "col', [BLUE])
    (write_prompt_folder(tmp_path, 6, "", [BLUE]) / "metadata.jsonl").unlink()
    found, left_out = names(tmp_path)
    assert found == ["00000/samples/0000.png"]
    said = [each.reason for each in left_out]
    assert said[0] == f"{tmp_path}/00001 has the prompt of {tmp_path}/00000, which would count twice"
    for number, (reason, expected) in enumerate(
        zip(
            said[1:], ["include.0.color", "tag: Field", "holds no line", "Invalid JSON", "cannot be read"], strict=True
        ),
        start=2,
    ):
        assert reason.startswith(f"{tmp_path}/{number:05}/metadata.jsonl")
        assert expected in reason
        assert "\n" not in reason
    assert [each.images for each in left_out] == [1] * 6


def test_what_the_evaluator_refuses_is_left_out(tmp_path: Path) -> None:
    write_prompt_folder(tmp_path, 0, metadata_line("star"), [BLUE])

    def refuse(lines: Sequence[PromptLine]) -> None:
        raise InvalidRequest(f"{lines[0].where}: no stars here")

    assert find_images(tmp_path, refuse) == ([], [LeftOut(f"{tmp_path}/00000/metadata.jsonl: no stars here", 1)])


def test_another_layout_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidRequest, match="nowhere is no folder"):
        find_images(tmp_path / "nowhere", accept)
    for wrong in (tmp_path, write_prompt_folder(tmp_path, 0, metadata_line("star"), []).parent):
        with pytest.raises(InvalidRequest, match=r"holds no images in GenEval's layout: expected 00000/metadata"):
            find_images(wrong, accept)


def test_genevals_own_prompts_are_read(geneval_data: Path, tmp_path: Path) -> None:
    lines = (geneval_data / "evaluation_metadata.jsonl").read_text().splitlines()
    for number, line in enumerate(lines[::20]):
        write_prompt_folder(tmp_path, number, line, [BLUE])
    found, left_out = names(tmp_path)
    assert len(found) == 28
    assert left_out == []
