"""Plot of a profile: time by N of every stage and every strategy, each above its roofline. Needs matplotlib."""

from collections.abc import Mapping
from pathlib import Path

from forejudge.errors import MissingExtra
from forejudge.files import write_bytes
from forejudge.profiling.figures import ENCODE, Profile, TimingWithRoofline
from forejudge.report.plots import Plot, Style, Theme, assign_styles

try:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.ticker import FormatStrFormatter, LogLocator, NullLocator
except ImportError:
    raise MissingExtra("matplotlib", "plots") from None

_ALT_TEXT = "Milliseconds by number of candidates with rooflines: stages above, whole searches below"


def write_profile_plot(profile: Profile, path: Path) -> None:
    """Write the plot as PNG. Raises OutputError where it cannot be written."""
    write_bytes(path, Plot(path.stem, _ALT_TEXT, lambda theme: _draw(profile, theme)).render().png)


def _draw(profile: Profile, theme: Theme) -> Figure:
    figure = Figure(figsize=(8, 7.5), layout="constrained")
    upper, lower = figure.subplots(2, 1, sharex=True)
    encode_style = {"color": theme.foreground, "marker": "X", "linestyle": ""}
    _plot_curve(upper, ENCODE, profile.stages[ENCODE].measurements, encode_style)
    _plot_curves(upper, {name: stage.measurements for name, stage in profile.stages.items() if name != ENCODE}, theme)
    _plot_curves(lower, {strategy.name: strategy.measurements for strategy in profile.strategies}, theme)
    upper.set_title("Stages by themselves", fontsize="medium")
    lower.set_title("From the prompt to the image", fontsize="medium")
    ns = profile.settings.ns
    lower.set_xscale("log", base=2)
    lower.set_xticks(ns, [str(n) for n in ns])
    lower.minorticks_off()
    lower.set_xlabel("N, candidates")
    figure.suptitle(
        f"{profile.settings.models}; {profile.settings.device_note}\n"
        "line: median, band: quartiles, dots below: roofline",
        fontsize="medium",
    )
    return figure


def _plot_curves(axes: Axes, curves: Mapping[str, Mapping[int, TimingWithRoofline]], theme: Theme) -> None:
    styles = assign_styles(curves, theme)
    for name, measurements in curves.items():
        _plot_curve(axes, name, measurements, styles[name])
    axes.set_yscale("log")
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.yaxis.set_major_formatter(FormatStrFormatter("%g"))
    axes.yaxis.set_minor_locator(NullLocator())
    axes.set_ylabel("Milliseconds")
    if curves:
        axes.legend(loc="center left", bbox_to_anchor=(1, 0.5))


def _plot_curve(axes: Axes, name: str, measurements: Mapping[int, TimingWithRoofline], style: Style) -> None:
    ns, timings = list(measurements), [measured.milliseconds for measured in measurements.values()]
    axes.plot(ns, [timing.median for timing in timings], label=name, **style)
    low, high = [timing.lower_quartile for timing in timings], [timing.upper_quartile for timing in timings]
    axes.fill_between(ns, low, high, color=style["color"], alpha=0.16, linewidth=0)
    rooflines = [measured.roofline_ms for measured in measurements.values()]
    axes.plot(ns, rooflines, color=style["color"], linewidth=0.9, linestyle=":", marker=".", markersize=3)
