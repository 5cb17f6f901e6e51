"""How plots look, on a light and on a dark page. Series differ in colour, marker and line."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO
from itertools import cycle
from math import ceil
from textwrap import fill
from typing import Any, Literal

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from forejudge.evaluation.figures import PERFECT, RANDOM

Style = Mapping[str, Any]
"""What `Axes.plot` takes: color, marker, linestyle."""

WIDTH = 4.2  # inches, little more than a phone has: letters of 9 points can be read on it
_HALF_WIDTH = 24  # letters of a name, of which two still stand side by side
_LEGEND_LINE = 0.18  # inches


@dataclass(frozen=True)
class Theme:
    """Colours of a page; `series` are told apart on `paper`."""

    paper: str
    ink: str
    faint: str
    grid: str
    series: tuple[str, ...]


LIGHT = Theme(
    paper="#ffffff",
    ink="#1d1d1f",
    faint="#6e6e73",
    grid="#e3e3e8",
    series=("#0b5fc1", "#c2410c", "#0f7b5f", "#7c3aed", "#a8326e", "#7a6200", "#0e7490"),
)
DARK = Theme(
    paper="#1c1c1f",
    ink="#f2f2f4",
    faint="#a5a5ad",
    grid="#38383d",
    series=("#6cb0ff", "#ff9a62", "#4fd1a5", "#c4a1ff", "#ff8fbf", "#e3c14a", "#5fd3e6"),
)


@dataclass(frozen=True)
class Drawn:
    """A plot as files: SVG for either background, and PNG for the light one."""

    name: str
    alt: str
    light: bytes
    dark: bytes
    png: bytes


@dataclass(frozen=True)
class Plot:
    """A plot by the name of its files, what it shows in words, and how it is drawn."""

    name: str
    alt: str
    draw: Callable[[Theme], Figure]

    def drawn(self) -> Drawn:
        """The same bytes each time."""
        with _themed(LIGHT):
            figure = self.draw(LIGHT)
            light, png = _saved(figure, "svg", Date=None), _saved(figure, "png", Software=None)
        with _themed(DARK):
            dark = _saved(self.draw(DARK), "svg", Date=None)
        return Drawn(self.name, self.alt, light, dark, png)


def styles_of(names: Iterable[str], theme: Theme) -> dict[str, Style]:
    """A style for each name, by its place; chance and the perfect judge frame the others and stand back."""
    colors, markers, lines = cycle(theme.series), cycle("osD^vP*"), cycle(("-", "--", "-."))
    framing: dict[str, Style] = {
        RANDOM: {"color": theme.faint, "marker": "", "linestyle": ":"},
        PERFECT: {"color": theme.ink, "marker": "", "linestyle": (0, (6, 2))},
    }
    return {
        name: framing.get(name)
        or {"color": next(colors), "marker": next(markers), "linestyle": next(lines), "markersize": 4.5}
        for name in names
    }


def new_axes(x: str, y: str) -> tuple[Figure, Axes]:
    """One plot with its axes named, y in per cent of shares in [0, 1]."""
    figure = Figure(figsize=(WIDTH, 2.7), layout="constrained")
    axes = figure.subplots()
    axes.set(xlabel=x, ylabel=y)
    as_percent(axes)
    return figure, axes


def as_percent(axes: Axes) -> None:
    """Shares in [0, 1] along y, written in per cent."""
    axes.yaxis.set_major_formatter(PercentFormatter(xmax=1, decimals=0, symbol=""))


def add_legend(figure: Figure) -> None:
    """Below the plot, where it hides nothing; the figure grows by its lines."""
    handles, labels = figure.axes[0].get_legend_handles_labels()
    columns = 2 if max(map(len, labels)) <= _HALF_WIDTH else 1
    wrapped = [fill(label, 2 * _HALF_WIDTH) for label in labels]
    lines = ceil(sum(label.count("\n") + 1 for label in wrapped) / columns)
    figure.set_figheight(figure.get_figheight() + _LEGEND_LINE * lines)
    figure.legend(handles, wrapped, loc="outside lower center", ncols=columns)


def _saved(figure: Figure, kind: Literal["png", "svg"], **metadata: None) -> bytes:
    """Without the metadata that would differ from one time to the next."""
    buffer = BytesIO()
    figure.savefig(buffer, format=kind, dpi=200, metadata=metadata)
    return buffer.getvalue()


@contextmanager
def _themed(theme: Theme) -> Iterator[None]:
    settings: dict[Any, Any] = {
        "figure.facecolor": theme.paper,
        "axes.facecolor": theme.paper,
        "axes.edgecolor": theme.faint,
        "axes.labelcolor": theme.ink,
        "axes.grid": True,
        "axes.axisbelow": True,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "grid.color": theme.grid,
        "grid.linewidth": 0.6,
        "xtick.color": theme.faint,
        "ytick.color": theme.faint,
        "text.color": theme.ink,
        "font.family": "DejaVu Sans",  # comes with matplotlib
        "font.size": 9,
        "legend.frameon": False,
        "legend.fontsize": 8.5,
        "lines.linewidth": 1.6,
        "savefig.facecolor": theme.paper,
        "svg.hashsalt": "forejudge",
    }
    with rc_context(settings):
        yield
