from io import BytesIO

import numpy as np
from PIL import Image

from forejudge.report.plot_style import DARK, LIGHT, Plot, new_axes, styles_of


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
