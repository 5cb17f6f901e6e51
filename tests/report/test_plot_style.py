from io import BytesIO

import numpy as np
import pytest
from PIL import Image

from forejudge.report.plot_style import DARK, LIGHT, Plot, add_legend, new_axes, styles_of


def plot() -> Plot:
    return Plot("nothing", "An empty plot", lambda theme: new_axes("x", "y")[0])


def test_a_plot_is_the_same_each_time():
    assert plot().drawn() == plot().drawn()


def test_a_plot_has_the_background_of_its_page():
    drawn = plot().drawn()
    corner = np.asarray(Image.open(BytesIO(drawn.png)).convert("RGB"))[0, 0]
    assert "#" + "".join(f"{value:02x}" for value in corner) == LIGHT.paper
    assert f"fill: {DARK.paper}" in drawn.dark.decode()


def test_chance_and_the_perfect_judge_take_no_colour_of_the_series():
    styles = styles_of(["a", "random", "b", "perfect judge"], LIGHT)
    assert [styles[name]["color"] for name in ("a", "b")] == list(LIGHT.series[:2])
    assert styles["random"]["marker"] == styles["perfect judge"]["marker"] == ""


@pytest.mark.parametrize(
    ("name", "columns", "shown"), [("a", 2, "a"), ("long " * 12, 1, "long " * 8 + "long\nlong long long")]
)
def test_long_names_stand_below_each_other_in_lines_that_fit(name: str, columns: int, shown: str):
    figure, axes = new_axes("x", "y")
    axes.plot([0], [0], label=name)
    axes.plot([0], [0], label="b")
    height = figure.get_figheight()
    add_legend(figure)
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == [shown, "b"]
    assert vars(legend)["_ncols"] == columns
    assert figure.get_figheight() > height
