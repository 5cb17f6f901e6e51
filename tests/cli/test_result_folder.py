from pathlib import Path

import pytest
from PIL import Image

from forejudge.cli import result_folder
from forejudge.cli.result_folder import contact_sheet, remove_other_results, write_result
from forejudge.errors import OutputError
from tests.support.command import fake_result

FRAME = (9, 105, 218)


def colors(image: Image.Image) -> set[tuple[int, ...]]:
    found = image.convert("RGB").getcolors(maxcolors=1_000_000)
    assert found is not None
    return {color for _, color in found if isinstance(color, tuple)}


def test_every_finished_image_is_shown_and_one_is_framed() -> None:
    sheet = contact_sheet(fake_result([0.2, 0.9, 0.4, 0.6, 0.3], with_images=[1, 3, 2, 4, 0]))
    seen = colors(sheet)
    assert {(10 * index,) * 3 for index in range(5)} <= seen
    assert FRAME in seen
    rows = [y for y in range(sheet.height) if FRAME in [sheet.getpixel((x, y)) for x in (240, 300, 420)]]
    assert 190 < max(rows) - min(rows) < 240, "the frame goes around the second image of the first row"


def test_verdicts_differ_by_color() -> None:
    green, red = (26, 127, 55), (180, 35, 24)
    assert colors(contact_sheet(fake_result([0.9, 0.8], with_images=[0, 1]))) & {green, red} == {green}
    assert colors(contact_sheet(fake_result([0.1, 0.2], with_images=[1, 0]))) & {green, red} == {red}
    assert not colors(contact_sheet(fake_result([None], with_images=[0]))) & {green, red}


@pytest.mark.parametrize("size", [(32, 32), (64, 128), (1024, 1024)])
def test_images_of_any_size_fit_their_place(size: tuple[int, int]) -> None:
    sheet = contact_sheet(fake_result([0.7] * 10, with_images=list(range(10)), size=size))
    assert sheet.width == contact_sheet(fake_result([0.7] * 10, with_images=list(range(10)))).width


def test_long_prompt_does_not_widen_the_sheet() -> None:
    result = fake_result([0.7], with_images=[0])
    long = result.record.model_copy(update={"prompt": "a photo of a red circle and " * 40})
    sheet = contact_sheet(type(result)(long, result.images))
    assert sheet.width == contact_sheet(result).width
    assert sheet.height < contact_sheet(result).height + 200


def test_winner_and_record_are_written_first(tmp_path: Path) -> None:
    (tmp_path / "candidates").write_text("a file where the folder should be")
    with pytest.raises(OutputError, match=r"candidates/0000\.png cannot be written"):
        write_result(tmp_path, fake_result([0.1, 0.8], with_images=[1, 0]), finish_all=True)
    assert (tmp_path / "best.png").is_file()
    assert (tmp_path / "result.json").is_file()


def test_more_than_ten_thousand_candidates_have_names() -> None:
    assert result_folder._EXTRA_FILES.fullmatch("candidates/10000.png")


def test_results_of_an_earlier_search_are_removed(tmp_path: Path) -> None:
    result, images = fake_result([0.1, 0.8], with_images=[1, 0]), [tmp_path / f"image_{index}" for index in range(3)]
    for folder in (tmp_path, *images):
        write_result(folder, result, finish_all=True)
    (tmp_path / "image_mine").mkdir()
    (images[2] / "notes.txt").touch()
    remove_other_results(tmp_path, images[:1])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["image_0", "image_2", "image_mine"]
    assert [path.name for path in images[2].iterdir()] == ["notes.txt"]
    assert (images[0] / "result.json").is_file()
    write_result(tmp_path, result, finish_all=False)
    remove_other_results(tmp_path, [tmp_path])
    assert not images[0].exists()
    assert (tmp_path / "best.png").is_file()
