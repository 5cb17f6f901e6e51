"""The plots of the page. Each is a function of figures that gives a drawing; quality is the share of right pictures."""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FormatStrFormatter, LogLocator, NullLocator
from numpy.typing import NDArray

from forejudge.evaluation.best_of_n import BoolArray, FloatArray, calibration_bins
from forejudge.evaluation.bootstrap import Interval
from forejudge.evaluation.equal_cost import CostCurve
from forejudge.evaluation.outcomes import Outcomes
from forejudge.report.contents import Figures, Layer
from forejudge.report.plot_style import WIDTH, Style, Theme, add_legend, as_percent, new_axes, styles_of

_QUALITY = "Right pictures, %"
_PLAIN_MARKERS = "XphH8"


def quality_against_time(figures: Figures, theme: Theme) -> Figure:
    """A curve with its band for each timed verifier, N beside its points; plain pictures are points with error bars."""
    figure, axes = new_axes("Milliseconds a prompt, picture included", _QUALITY)
    choosers = figures.by_chooser()
    styles = styles_of(choosers, theme)
    for place, (name, searches) in enumerate(figures.costs.searches.items()):
        curve, rows = CostCurve(searches.milliseconds), choosers[name]
        milliseconds = [curve.at(row.n) for row in rows]
        _curve(axes, milliseconds, [row.micro for row in rows], name, styles[name])
        for x, row in zip(milliseconds, rows, strict=True):
            _say_n(axes, x, row.micro.estimate, row.n, above=place % 2 == 0, color=styles[name]["color"])
    _plain_pictures(axes, figures, theme)
    axes.set_xscale("log")
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 1.5, 2, 3, 4, 6, 8)))
    axes.xaxis.set_major_formatter(FormatStrFormatter("%g"))
    axes.xaxis.set_minor_locator(NullLocator())
    add_legend(figure)
    return figure


def quality_against_n(figures: Figures, theme: Theme) -> Figure:
    """A line for each chooser, without its interval: they have many candidates in common."""
    figure, axes = new_axes("N, candidates to choose from", _QUALITY)
    choosers = figures.by_chooser()
    styles = styles_of(choosers, theme)
    for name, rows in choosers.items():
        axes.plot([row.n for row in rows], [row.micro.estimate for row in rows], label=name, **styles[name])
    ns = sorted({row.n for row in figures.best_of_n})
    axes.set_xscale("log", base=2)
    axes.set_xticks(ns, [str(n) for n in ns])
    axes.minorticks_off()
    add_legend(figure)
    return figure


def calibration(outcomes: Outcomes, figures: Figures, theme: Theme) -> Figure:
    """For each verifier with probabilities the share of right pictures in each bin, and below how many are in it."""
    figure = Figure(figsize=(WIDTH, 4.0), layout="constrained")
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
    styles = styles_of(figures.by_chooser(), theme)
    upper.plot([0, 1], [0, 1], color=theme.faint, linewidth=1, linestyle=":", label="as often right as said")
    for name, probability in outcomes.probability_CSN.items():
        error = figures.verifiers[name].expected_calibration_error
        said, right, count = bins_of(probability, outcomes.correct_CSN)
        filled = count > 0
        upper.plot(said[filled], right[filled], label=f"{name}, error {error:.3f}", **styles[name])
        lower.stairs(
            count, np.linspace(0, 1, len(count) + 1), color=styles[name]["color"], linestyle=styles[name]["linestyle"]
        )
    upper.set(ylabel=_QUALITY, xlim=(-0.02, 1.02), ylim=(-0.03, 1.03))
    as_percent(upper)
    lower.set(xlabel="Probability that the verifier gives", ylabel="Candidates")
    figure.align_ylabels()
    add_legend(figure)
    return figure


def bins_of(probability: FloatArray, correct: BoolArray) -> tuple[FloatArray, FloatArray, NDArray[np.intp]]:
    """Of each of 15 bins the mean probability and the share right, nan without candidates, and how many there are."""
    bins = calibration_bins(probability, correct)
    sums = np.stack([bins.probability, bins.correct])
    means = np.divide(sums, bins.count, out=np.full(sums.shape, np.nan), where=bins.count > 0)
    return means[0], means[1], bins.count


def quality_by_layer(layers: Sequence[Layer], theme: Theme) -> Figure:
    """What is reached by a verifier that reads after so many blocks."""
    figure, axes = new_axes("Blocks before the verifier reads", _QUALITY)
    (style,) = styles_of(["layers"], theme).values()
    _curve(axes, [layer.cut for layer in layers], [layer.micro for layer in layers], "", style)
    axes.set_xticks([layer.cut for layer in layers])
    return figure


def _curve(axes: Axes, x: Sequence[float], y: Sequence[Interval], name: str, style: Style) -> None:
    """A line and the band of its intervals."""
    axes.plot(x, [each.estimate for each in y], label=name, **style)
    low, high = [each.low for each in y], [each.high for each in y]
    axes.fill_between(x, low, high, color=style["color"], alpha=0.16, linewidth=0)


def _say_n(axes: Axes, x: float, y: float, n: int, *, above: bool, color: str) -> None:
    axes.annotate(
        str(n),
        (x, y),
        (0, 6 if above else -6),
        textcoords="offset points",
        color=color,
        ha="center",
        va="bottom" if above else "top",
        fontsize=8,
    )


def _plain_pictures(axes: Axes, figures: Figures, theme: Theme) -> None:
    for (name, averages), marker in zip(figures.plain.items(), _PLAIN_MARKERS * len(figures.plain), strict=False):
        shown = averages.micro
        errors = [[shown.estimate - shown.low], [shown.high - shown.estimate]]
        axes.errorbar(
            figures.costs.plain_milliseconds[name],
            shown.estimate,
            errors,
            label=f"no verifier, {name}",
            color=theme.faint,
            marker=marker,
            linestyle="",
            elinewidth=0.8,
            markersize=6,
        )
