from pathlib import Path

import pytest
from PIL import Image

from forejudge.cli import result_folder
from forejudge.cli.result_folder import contact_sheet, write_result
from forejudge.errors import OutputError
from tests.support.command import made_up

FRAME = (9, 105, 218)


def colours(picture: Image.Image) -> set[tuple[int, ...]]:
    found = picture.convert("RGB").getcolors(maxcolors=1_000_000)
    assert found is not None
    return {colour for _, colour in found if isinstance(colour, tuple)}


def test_every_finished_picture_is_there_and_one_is_framed() -> None:
    sheet = contact_sheet(made_up([0.2, 0.9, 0.4, 0.6, 0.3], finished=[1, 3, 2, 4, 0]))
    seen = colours(sheet)
    assert {(10 * index,) * 3 for index in range(5)} <= seen
    assert FRAME in seen
    rows = [y for y in range(sheet.height) if FRAME in [sheet.getpixel((x, y)) for x in (240, 300, 420)]]
    assert 190 < max(rows) - min(rows) < 240, "the frame goes around the second picture of the first row"


def test_verdicts_differ_by_colour() -> None:
    green, red = (26, 127, 55), (180, 35, 24)
    assert colours(contact_sheet(made_up([0.9, 0.8], finished=[0, 1]))) & {green, red} == {green}
    assert colours(contact_sheet(made_up([0.1, 0.2], finished=[1, 0]))) & {green, red} == {red}
    assert not colours(contact_sheet(made_up([None], finished=[0]))) & {green, red}


@pytest.mark.parametrize("size", [(32, 32), (64, 128), (1024, 1024)])
def test_pictures_of_any_size_fit_their_place(size: tuple[int, int]) -> None:
    sheet = contact_sheet(made_up([0.7] * 10, finished=list(range(10)), size=size))
    assert sheet.width == contact_sheet(made_up([0.7] * 10, finished=list(range(10)))).width


def test_long_prompt_does_not_widen_the_sheet() -> None:
    result = made_up([0.7], finished=[0])
    long = result.record.model_copy(update={"prompt": "a photo of a red circle and " * 40})
    sheet = contact_sheet(type(result)(long, result.images))
    assert sheet.width == contact_sheet(result).width
    assert sheet.height < contact_sheet(result).height + 200


def test_winner_and_record_are_written_first(tmp_path: Path) -> None:
    (tmp_path / "candidates").write_text("a file where the folder should be")
    with pytest.raises(OutputError, match=r"candidates/0000\.png cannot be written"):
        write_result(tmp_path, made_up([0.1, 0.8], finished=[1, 0]), everything=True)
    assert (tmp_path / "best.png").is_file()
    assert (tmp_path / "result.json").is_file()


def test_more_than_ten_thousand_candidates_have_names() -> None:
    assert result_folder._OTHERS.fullmatch("candidates/10000.png")
