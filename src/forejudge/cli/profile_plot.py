"""A profile as a plot: time by N of every stage and of every way to pick, each with its floor below."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from forejudge.files import write_bytes
from forejudge.profiling.profile_figures import Measured, Profile
from forejudge.profiling.stage_costs import ENCODE
from forejudge.report.plot_style import Plot, Style, Theme, styles_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_ALT = "Milliseconds by number of candidates, with floors: stages above, whole searches below"


def write_plot(found: Profile, path: Path) -> None:
    """As PNG. Raises OutputError where it cannot be written."""
    write_bytes(path, Plot(path.stem, _ALT, lambda theme: _draw(found, theme)).drawn().png)


def _draw(found: Profile, theme: Theme) -> "Figure":
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 7.5), layout="constrained")
    upper, lower = figure.subplots(2, 1, sharex=True)
    batched = {name: stage.at for name, stage in found.stages.items() if name != ENCODE}
    _curve(upper, ENCODE, found.stages[ENCODE].at, {"color": theme.ink, "marker": "X", "linestyle": ""})
    _curves(upper, batched, theme)
    _curves(lower, {figures.name: figures.at for figures in found.strategies}, theme)
    upper.set_title("Stages by themselves", fontsize="medium")
    lower.set_title("From the prompt to the picture", fontsize="medium")
    ns = found.settings.ns
    lower.set_xscale("log", base=2)
    lower.set_xticks(ns, [str(n) for n in ns])
    lower.minorticks_off()
    lower.set_xlabel("N, candidates")
    figure.suptitle(
        f"{found.settings.models}; figures {found.settings.figures}\nline: median, band: quartiles, dots below: floor",
        fontsize="medium",
    )
    return figure


def _curves(axes: "Axes", curves: Mapping[str, Mapping[int, Measured]], theme: Theme) -> None:
    from matplotlib.ticker import FormatStrFormatter, LogLocator, NullLocator

    styles = styles_of(curves, theme)
    for name, at in curves.items():
        _curve(axes, name, at, styles[name])
    axes.set_yscale("log")
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.yaxis.set_major_formatter(FormatStrFormatter("%g"))
    axes.yaxis.set_minor_locator(NullLocator())
    axes.set_ylabel("Milliseconds")
    axes.legend(loc="center left", bbox_to_anchor=(1, 0.5))


def _curve(axes: "Axes", name: str, at: Mapping[int, Measured], style: Style) -> None:
    ns, timings = list(at), [measured.milliseconds for measured in at.values()]
    axes.plot(ns, [timing.median for timing in timings], label=name, **style)
    low, high = [timing.lower_quartile for timing in timings], [timing.upper_quartile for timing in timings]
    axes.fill_between(ns, low, high, color=style["color"], alpha=0.16, linewidth=0)
    floors = [measured.floor_milliseconds for measured in at.values()]
    axes.plot(ns, floors, color=style["color"], linewidth=0.9, linestyle=":", marker=".", markersize=3)
