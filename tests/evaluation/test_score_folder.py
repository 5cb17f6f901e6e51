from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from forejudge.errors import CheckpointError, InvalidRequest
from forejudge.evaluation.score_folder import LeftOut, find_images, open_image
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
    write_prompt_folder(tmp_path, 1, metadata_line("star"), [BLUE] * 4)
    first = write_prompt_folder(tmp_path, 0, metadata_line("ring"), [BLUE])
    BLUE.save(first / "samples" / "7.jpg")
    BLUE.save(first / "grid.png")
    BLUE.save(first / "samples" / "best.png")
    BLUE.save(first / "samples" / "0008.WEBP")
    BLUE.save(first / "samples" / "0009.PNG")
    (first / "results").mkdir()
    write_prompt_folder(tmp_path / "notes", 2, "", [])
    (tmp_path / "settings.json").touch()
    found, left_out = names(tmp_path)
    assert found == [
        "00000/samples/0000.png",
        "00000/samples/0008.WEBP",
        "00000/samples/0009.PNG",
        "00000/samples/7.jpg",
        "00001/samples/0000.png",
        "00001/samples/0001.png",
        "00001/samples/0002.png",
        "00001/samples/0003.png",
    ]
    assert left_out == []


def test_two_files_of_one_image_count_once(tmp_path: Path) -> None:
    samples = write_prompt_folder(tmp_path, 0, metadata_line("star"), [BLUE] * 2) / "samples"
    BLUE.save(samples / "0000.jpg")
    BLUE.save(samples / "1.png")
    found, left_out = names(tmp_path)
    assert found == ["00000/samples/0000.png", "00000/samples/0001.png"]
    assert [each.reason.split(" has ")[0] for each in left_out] == [f"{samples}/0000.jpg", f"{samples}/1.png"]


def test_a_repeated_prompt_has_further_images_and_no_copies(tmp_path: Path) -> None:
    write_prompt_folder(tmp_path, 0, metadata_line("star"), [BLUE, BLUE])
    write_prompt_folder(tmp_path, 1, metadata_line("star"), [solid_image("red"), BLUE])
    found, left_out = names(tmp_path)
    assert found == ["00000/samples/0000.png", "00000/samples/0001.png", "00001/samples/0000.png"]
    assert left_out == [
        LeftOut(
            f"{tmp_path}/00001/samples/0001.png is {tmp_path}/00000/samples/0000.png again, with its prompt, and would "
            "count twice",
            1,
        )
    ]


def test_missing_folders_are_counted(tmp_path: Path) -> None:
    for number in (2, 5):
        write_prompt_folder(tmp_path, number, metadata_line(f"star {number}"), [BLUE] * 3)
    assert names(tmp_path)[1] == [LeftOut(f"{tmp_path}/00003 is missing, one of 2 folders up to 00005", 6)]


def test_a_dangling_link_and_a_folder_are_left_to_be_named(tmp_path: Path) -> None:
    samples = write_prompt_folder(tmp_path, 0, metadata_line("star"), [BLUE]) / "samples"
    (samples / "0001.png").symlink_to("nowhere.png")
    (samples / "0002.png").mkdir()
    found, left_out = find_images(tmp_path, accept)
    assert (len(found), left_out) == (3, [])
    for image in found[1:]:
        with pytest.raises(CheckpointError, match=f"{image.path} cannot be opened"):
            open_image(image.path)


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
    assert said[0].startswith(f"{tmp_path}/00001/samples/0000.png is {tmp_path}/00000/samples/0000.png again")
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


def colors_of(folder: Path, name: str, image: Image.Image, **options: Any) -> tuple[int, int, int]:
    image.save(folder / name, **options)
    opened = open_image(folder / name)
    assert opened.mode == "RGB"
    pixel = opened.getpixel((0, 0))
    assert isinstance(pixel, tuple)
    return pixel[0], pixel[1], pixel[2]


@pytest.mark.parametrize(
    ("image", "name", "expected"),
    [
        (Image.fromarray(np.full((4, 4), 20000, np.uint16)), "gray.png", (78, 78, 78)),  # 20000 / 256
        (Image.new("CMYK", (8, 8), (0, 255, 255, 0)), "cmyk.jpg", (255, 0, 0)),
        (Image.new("RGB", (8, 8), (9, 99, 199)).quantize(4), "palette.png", (9, 99, 199)),
        (Image.new("LA", (8, 8), (77, 0)), "alpha.png", (77, 77, 77)),
        (Image.new("1", (8, 8), 1), "bits.png", (255, 255, 255)),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_images_of_any_mode_are_read(
    tmp_path: Path, image: Image.Image, name: str, expected: tuple[int, int, int]
) -> None:
    assert colors_of(tmp_path, name, image) == pytest.approx(expected, abs=2)


def test_bombs_and_broken_files_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    BLUE.save(tmp_path / "large.png")
    monkeypatch.setattr("PIL.Image.MAX_IMAGE_PIXELS", 20)
    with pytest.raises(CheckpointError, match=r"large\.png cannot be opened \(Image size \(64 pixels\) exceeds limit"):
        open_image(tmp_path / "large.png")
    content = (tmp_path / "large.png").read_bytes()
    for broken in (b"", content[:40], content[:-20], b"\x89PNG\r\n\x1a\n" + bytes(99)):
        (tmp_path / "broken.png").write_bytes(broken)
        with pytest.raises(CheckpointError, match=r"broken\.png cannot be opened \("):
            open_image(tmp_path / "broken.png")
