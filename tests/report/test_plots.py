from io import BytesIO

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import StepPatch
from PIL import Image

from forejudge.evaluation.bootstrap import Interval
from forejudge.report.page import Contents
from forejudge.report.plots import (
    DARK,
    LIGHT,
    Plot,
    Theme,
    add_legend,
    assign_styles,
    calibration,
    calibration_curve,
    mean_time_lines,
    new_axes,
    quality_against_mean_time,
    quality_against_n,
    quality_against_time,
    quality_by_layer,
)


def plot() -> Plot:
    return Plot("nothing", "An empty plot", lambda theme: new_axes("x", "y")[0])


def test_a_plot_is_the_same_each_time():
    assert plot().render() == plot().render()


def test_a_plot_has_the_background_of_its_page():
    rendered = plot().render()
    corner = np.asarray(Image.open(BytesIO(rendered.png)).convert("RGB"))[0, 0]
    assert "#" + "".join(f"{value:02x}" for value in corner) == LIGHT.background
    assert f"fill: {DARK.background}" in rendered.dark.decode()


def test_random_and_oracle_take_no_color_of_the_series():
    styles = assign_styles(["a", "random", "b", "oracle"], LIGHT)
    assert [styles[name]["color"] for name in ("a", "b")] == list(LIGHT.series[:2])
    assert styles["random"]["marker"] == styles["oracle"]["marker"] == ""


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


def lines_of(axes: Axes) -> dict[str, np.ndarray]:
    """Points (x, y) of each line by its label."""
    return {str(line.get_label()): np.asarray(line.get_xydata()) for line in axes.get_lines()}


def look(line: Line2D) -> tuple[str, str]:
    """Return marker and dashes, which need no color."""
    return str(line.get_marker()), str(vars(line)["_dash_pattern"])


def test_time_is_that_of_a_search_with_each_n(contents: Contents):
    (axes,) = quality_against_time(contents.report, LIGHT).axes
    lines = lines_of(axes)
    assert lines["hidden"][:, 0] == pytest.approx([100, 110, 130])
    assert lines["clip"][:, 0] == pytest.approx([100, 125, 175])
    of_hidden = [row.micro.estimate for row in contents.report.by_strategy()["hidden"]]
    assert lines["hidden"][:, 1] == pytest.approx(of_hidden)
    assert [text.get_text() for text in axes.texts] == ["1", "2", "4"] * 2


def test_bands_reach_from_low_to_high(contents: Contents):
    (axes,) = quality_against_time(contents.report, LIGHT).axes
    rows = contents.report.by_strategy()["hidden"]
    corners = np.asarray(axes.collections[0].get_paths()[0].vertices)
    assert corners[:, 1].min() == pytest.approx(min(row.micro.low for row in rows))
    assert corners[:, 1].max() == pytest.approx(max(row.micro.high for row in rows))


def test_baselines_are_points_at_their_time(contents: Contents):
    (axes,) = quality_against_time(contents.report, LIGHT).axes
    points = {
        str(container.get_label()): np.asarray(container[0].get_xydata()).tolist() for container in axes.containers
    }
    baselines = contents.report.baselines
    assert points == {
        "no verifier, 1 step": [[90, baselines["1 step"].micro.estimate]],
        "no verifier, 2 steps": [[105, baselines["2 steps"].micro.estimate]],
    }


def test_every_strategy_has_a_line_over_n(contents: Contents):
    (axes,) = quality_against_n(contents.report, DARK).axes
    lines = lines_of(axes)
    assert list(lines) == list(contents.report.by_strategy())
    assert all(points[:, 0].tolist() == [1, 2, 4] for points in lines.values())


def test_series_differ_in_more_than_color(contents: Contents):
    (axes,) = quality_against_n(contents.report, LIGHT).axes
    looks = [look(line) for line in axes.get_lines()]
    assert len(set(looks)) == len(looks)


def test_calibration_shows_those_with_probabilities_and_all_their_candidates(contents: Contents):
    upper, lower = calibration(contents.outcomes, contents.report, LIGHT).axes
    _, hidden = upper.get_lines()
    error = contents.report.verifiers["hidden"].expected_calibration_error
    assert hidden.get_label() == f"hidden, error {error:.3f}"
    (counts,) = lower.patches
    assert isinstance(counts, StepPatch)
    assert counts.get_data()[0].sum() == contents.outcomes.correct_CSN.size


def test_bins_are_means_of_their_candidates():
    said, right, count = calibration_curve(np.array([0.02, 0.04, 0.99]), np.array([False, True, True]))
    assert (said[0], right[0], count[0]) == pytest.approx((0.03, 0.5, 2))
    assert (said[-1], right[-1], count[-1]) == pytest.approx((0.99, 1, 1))
    assert np.isnan(said[1:-1]).all()


def test_layers_lie_at_their_cuts():
    layers = [
        (num_prefix_blocks, Interval(estimate=num_prefix_blocks / 30, low=0, high=1))
        for num_prefix_blocks in (4, 12, 20)
    ]
    (axes,) = quality_by_layer(layers, LIGHT).axes
    (points,) = lines_of(axes).values()
    assert points[:, 0].tolist() == [4, 12, 20]
    assert points[:, 1] == pytest.approx([4 / 30, 12 / 30, 20 / 30])


def test_a_name_with_dollars_is_no_formula():
    def draw(theme: Theme) -> Figure:
        figure, axes = new_axes("$_{$", "quality")
        axes.plot([0, 1], [0, 1], label="a $^$ b")
        axes.legend()
        return figure

    assert b"<svg" in Plot("name", "alt", draw).render().light


def test_searches_are_plotted_at_their_mean_time_beside_fixed_n(searched: Contents):
    (axes,) = quality_against_mean_time(searched.report, LIGHT).axes
    lines = lines_of(axes)
    assert list(lines) == ["hidden, fixed", "hidden, until,batch_size=1", "clip, fixed"]
    assert lines["hidden, fixed"][:, 0].tolist() == [110, 130], "N = 2 and 4"
    rows = mean_time_lines(searched.report)["hidden, until,batch_size=1"]
    assert lines["hidden, until,batch_size=1"][:, 0] == pytest.approx([row.cost for row in rows])
    assert lines["clip, fixed"][:, 0] == pytest.approx([110, 130]), "mixed to the same times"
