"""Plots of the report, on a light and a dark background; quality is accuracy. Needs matplotlib.

Series differ in color, marker and line, so that they can be told apart in print and by color-blind readers.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO
from itertools import cycle
from math import ceil
from textwrap import fill
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from forejudge.errors import MissingExtra
from forejudge.evaluation.bootstrap import Interval
from forejudge.evaluation.equal_cost import CostCurve
from forejudge.evaluation.metrics import BoolArray, FloatArray, calibration_bins
from forejudge.evaluation.report import FIXED, ORACLE, RANDOM, EvaluationReport, MeanCostRow
from forejudge.evaluation.strategies import Outcomes
from forejudge.report.tables import image_verifier, number

try:
    from matplotlib import rc_context
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.ticker import FormatStrFormatter, LogLocator, NullLocator, PercentFormatter
except ImportError:
    raise MissingExtra("matplotlib", "plots") from None

Style = Mapping[str, Any]
"""Arguments of `Axes.plot`: color, marker, linestyle."""

WIDTH = 4.2  # inches, little more than a phone, where 9 points are still legible
_MAX_COLUMN_CHARS = 24  # the longest name of which two fit side by side
_LEGEND_LINE = 0.18  # inches
_QUALITY = "Accuracy, %"
_BASELINE_MARKERS = "XphH8"


@dataclass(frozen=True)
class Theme:
    """Colors of a page; `series` are distinguishable on `background`."""

    background: str
    foreground: str
    muted: str
    grid: str
    series: tuple[str, ...]


LIGHT = Theme(
    background="#ffffff",
    foreground="#1d1d1f",
    muted="#6e6e73",
    grid="#e3e3e8",
    series=("#0b5fc1", "#c2410c", "#0f7b5f", "#7c3aed", "#a8326e", "#7a6200", "#0e7490"),
)
DARK = Theme(
    background="#1c1c1f",
    foreground="#f2f2f4",
    muted="#a5a5ad",
    grid="#38383d",
    series=("#6cb0ff", "#ff9a62", "#4fd1a5", "#c4a1ff", "#ff8fbf", "#e3c14a", "#5fd3e6"),
)


@dataclass(frozen=True)
class RenderedPlot:
    """A plot as files: SVG for each background, and PNG for the light one."""

    name: str
    alt: str
    light: bytes
    dark: bytes
    png: bytes


@dataclass(frozen=True)
class Plot:
    """A plot: the name of its files, a description, and the function that draws it."""

    name: str
    alt: str
    draw: Callable[[Theme], Figure]

    def render(self) -> RenderedPlot:
        """Draw the plot; one plot always gives the same bytes."""
        with _theme_context(LIGHT):
            figure = self.draw(LIGHT)
            light, png = _save(figure, "svg", Date=None), _save(figure, "png", Software=None)
        with _theme_context(DARK):
            dark = _save(self.draw(DARK), "svg", Date=None)
        return RenderedPlot(self.name, self.alt, light, dark, png)


def assign_styles(names: Iterable[str], theme: Theme) -> dict[str, Style]:
    """Assign a style to each name by its place; random and oracle are muted, as they only frame the others."""
    colors, markers, lines = cycle(theme.series), cycle("osD^vP*"), cycle(("-", "--", "-."))
    reference_styles: dict[str, Style] = {
        RANDOM: {"color": theme.muted, "marker": "", "linestyle": ":"},
        ORACLE: {"color": theme.foreground, "marker": "", "linestyle": (0, (6, 2))},
    }
    return {
        name: reference_styles.get(name)
        or {"color": next(colors), "marker": next(markers), "linestyle": next(lines), "markersize": 4.5}
        for name in names
    }


def new_axes(x: str, y: str) -> tuple[Figure, Axes]:
    """Return an empty plot with labeled axes; y shows shares in [0, 1] in per cent."""
    figure = Figure(figsize=(WIDTH, 2.7), layout="constrained")
    axes = figure.subplots()
    axes.set(xlabel=x, ylabel=y)
    format_percent_axis(axes)
    return figure, axes


def format_percent_axis(axes: Axes) -> None:
    """Show shares in [0, 1] along y in per cent."""
    axes.yaxis.set_major_formatter(PercentFormatter(xmax=1, decimals=0, symbol=""))


def add_legend(figure: Figure) -> None:
    """Add a legend below the plot, where it hides nothing; the figure grows by its height."""
    handles, labels = figure.axes[0].get_legend_handles_labels()
    columns = 2 if max(map(len, labels)) <= _MAX_COLUMN_CHARS else 1
    wrapped = [fill(label, 2 * _MAX_COLUMN_CHARS) for label in labels]
    lines = ceil(sum(label.count("\n") + 1 for label in wrapped) / columns)
    figure.set_figheight(figure.get_figheight() + _LEGEND_LINE * lines)
    figure.legend(handles, wrapped, loc="outside lower center", ncols=columns)


def _save(figure: Figure, kind: Literal["png", "svg"], **metadata: None) -> bytes:
    """Save a figure without the metadata that differs from run to run."""
    buffer = BytesIO()
    figure.savefig(buffer, format=kind, dpi=200, metadata=metadata)
    return buffer.getvalue()


@contextmanager
def _theme_context(theme: Theme) -> Iterator[None]:
    settings: dict[Any, Any] = {
        "text.parse_math": False,  # a name with two $ is no formula
        "figure.facecolor": theme.background,
        "axes.facecolor": theme.background,
        "axes.edgecolor": theme.muted,
        "axes.labelcolor": theme.foreground,
        "axes.grid": True,
        "axes.axisbelow": True,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "grid.color": theme.grid,
        "grid.linewidth": 0.6,
        "xtick.color": theme.muted,
        "ytick.color": theme.muted,
        "text.color": theme.foreground,
        "font.family": "DejaVu Sans",  # ships with matplotlib
        "font.size": 9,
        "legend.frameon": False,
        "legend.fontsize": 8.5,
        "lines.linewidth": 1.6,
        "savefig.facecolor": theme.background,
        "svg.hashsalt": "forejudge",
    }
    with rc_context(settings):
        yield


def quality_against_time(report: EvaluationReport, theme: Theme) -> Figure:
    """Plot a curve with its band for each timed verifier, N beside its points; baselines are points with error bars."""
    figure, axes = new_axes("Milliseconds per prompt, from text to image", _QUALITY)
    strategies = report.by_strategy()
    styles = assign_styles(strategies, theme)
    for index, (name, searches) in enumerate(report.costs.searches.items()):
        curve, rows = CostCurve.of(searches.milliseconds), strategies[name]
        milliseconds = [curve.cost_at(row.n) for row in rows]
        _plot_curve(axes, milliseconds, [row.micro for row in rows], name, styles[name])
        for x, row in zip(milliseconds, rows, strict=True):
            _annotate_n(axes, x, row.micro.estimate, row.n, above=index % 2 == 0, color=styles[name]["color"])
    _plot_baselines(axes, report, theme)
    use_log_costs(axes)
    add_legend(figure)
    return figure


def quality_against_mean_time(report: EvaluationReport, theme: Theme) -> Figure:
    """Plot a line for each strategy of `mean_time_lines`; intervals are left out, as all strategies share prompts."""
    figure, axes = new_axes("Mean milliseconds per prompt, from text to image", _QUALITY)
    lines = mean_time_lines(report)
    styles = assign_styles(lines, theme)
    for name, rows in lines.items():
        axes.plot([row.cost for row in rows], [row.micro.estimate for row in rows], label=name, **styles[name])
    use_log_costs(axes)
    add_legend(figure)
    return figure


def mean_time_lines(report: EvaluationReport) -> dict[str, list[MeanCostRow]]:
    """Return the rows at the budgets of fixed Best-of-N by the first verifier and by that which reads images, if any.

    Beside them stand the searches of the first policy that ends by verdicts, with each verifier.
    """
    first, images = report.equal_mean_time[0], image_verifier(report.costs, report.settings.reads)
    budgets = {row.budget for row in report.equal_mean_time if (row.verifier, row.policy) == (first.verifier, FIXED)}
    rows = [row for row in report.equal_mean_time if row.verifier and row.budget in budgets]
    policy = next((row.policy for row in rows if row.policy != FIXED), None)
    lines: dict[str, list[MeanCostRow]] = {}
    for row in rows:
        if row.policy == policy or (row.policy == FIXED and row.verifier in (first.verifier, images)):
            lines.setdefault(f"{row.verifier}, {row.policy}", []).append(row)
    return lines


def use_log_costs(axes: Axes) -> None:
    """Make the x axis logarithmic, with plain numbers at its ticks."""
    axes.set_xscale("log")
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 1.5, 2, 3, 4, 6, 8)))
    axes.xaxis.set_major_formatter(FormatStrFormatter("%g"))
    axes.xaxis.set_minor_locator(NullLocator())


def quality_against_n(report: EvaluationReport, theme: Theme) -> Figure:
    """Plot a line for each strategy, without intervals: the strategies share candidates, so those would mislead."""
    figure, axes = new_axes("N, candidates", _QUALITY)
    strategies = report.by_strategy()
    styles = assign_styles(strategies, theme)
    for name, rows in strategies.items():
        axes.plot([row.n for row in rows], [row.micro.estimate for row in rows], label=name, **styles[name])
    ns = sorted({row.n for row in report.best_of_n})
    axes.set_xscale("log", base=2)
    axes.set_xticks(ns, [str(n) for n in ns])
    axes.minorticks_off()
    add_legend(figure)
    return figure


def calibration(outcomes: Outcomes, report: EvaluationReport, theme: Theme) -> Figure:
    """Plot the accuracy in each bin of probability for each calibrated verifier, and the candidates per bin below."""
    figure = Figure(figsize=(WIDTH, 4.0), layout="constrained")
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
    styles = assign_styles(report.by_strategy(), theme)
    upper.plot([0, 1], [0, 1], color=theme.muted, linewidth=1, linestyle=":", label="perfectly calibrated")
    for name, probability in outcomes.probability_CSN.items():
        error = number(report.verifiers[name].expected_calibration_error, 3)
        mean_probability, accuracy, count = calibration_curve(probability, outcomes.correct_CSN)
        is_filled = count > 0
        upper.plot(mean_probability[is_filled], accuracy[is_filled], label=f"{name}, error {error}", **styles[name])
        lower.stairs(
            count, np.linspace(0, 1, len(count) + 1), color=styles[name]["color"], linestyle=styles[name]["linestyle"]
        )
    upper.set(ylabel=_QUALITY, xlim=(-0.02, 1.02), ylim=(-0.03, 1.03))
    format_percent_axis(upper)
    lower.set(xlabel="Probability from the verifier", ylabel="Candidates")
    figure.align_ylabels()
    add_legend(figure)
    return figure


def calibration_curve(probability: FloatArray, correct: BoolArray) -> tuple[FloatArray, FloatArray, NDArray[np.intp]]:
    """Return mean probability, accuracy (both nan without candidates) and number of candidates of 15 bins."""
    bins = calibration_bins(probability, correct)
    sums = np.stack([bins.probability, bins.correct])
    means = np.divide(sums, bins.count, out=np.full(sums.shape, np.nan), where=bins.count > 0)
    return means[0], means[1], bins.count


def quality_by_layer(layers: Sequence[tuple[int, Interval]], theme: Theme) -> Figure:
    """Plot accuracy against the number of blocks before the hidden state that the verifier reads."""
    figure, axes = new_axes("Blocks before the verifier reads", _QUALITY)
    (style,) = assign_styles(["layers"], theme).values()
    blocks = [count for count, _ in layers]
    _plot_curve(axes, blocks, [interval for _, interval in layers], "", style)
    axes.set_xticks(blocks)
    return figure


def _plot_curve(axes: Axes, x: Sequence[float], y: Sequence[Interval], name: str, style: Style) -> None:
    """Plot a line and the band of its intervals."""
    axes.plot(x, [each.estimate for each in y], label=name, **style)
    low, high = [each.low for each in y], [each.high for each in y]
    axes.fill_between(x, low, high, color=style["color"], alpha=0.16, linewidth=0)


def _annotate_n(axes: Axes, x: float, y: float, n: int, *, above: bool, color: str) -> None:
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


def _plot_baselines(axes: Axes, report: EvaluationReport, theme: Theme) -> None:
    for (name, averages), marker in zip(report.baselines.items(), cycle(_BASELINE_MARKERS), strict=False):
        micro = averages.micro
        axes.errorbar(
            report.costs.baseline_ms[name],
            micro.estimate,
            [[micro.estimate - micro.low], [micro.high - micro.estimate]],
            label=f"no verifier, {name}",
            color=theme.muted,
            marker=marker,
            linestyle="",
            elinewidth=0.8,
            markersize=6,
        )
