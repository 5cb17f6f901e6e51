"""A study as a plot: the distance closed by each variant, with its interval and every training seed's own value."""

from pathlib import Path
from typing import Any

from forejudge.cli.tables import differ
from forejudge.errors import MissingExtra
from forejudge.files import write_bytes


def write_plot(figures: dict[str, Any], path: Path) -> None:
    """As PNG. Raises MissingExtra without matplotlib, OutputError where it cannot be written."""
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise MissingExtra("matplotlib", "plots") from None
    from io import BytesIO

    variants = figures["variants"]
    labels = _labels(variants)
    figure = Figure(
        figsize=(7, 0.8 + sum(0.3 + 0.15 * len(label.splitlines()) for label in labels)), layout="constrained"
    )
    axes = figure.subplots()
    for place, found in enumerate(variants.values()):
        closed = {end: 100 * found["distance_closed"][end] for end in ("estimate", "low", "high")}
        axes.plot([closed["low"], closed["high"]], [place, place], color="tab:blue", linewidth=2)
        axes.plot(closed["estimate"], place, "o", color="tab:blue")
        each = [100 * value for value in found["distance_closed_of_each_seed"]]
        axes.plot(each, [place] * len(each), "|", color="black", markersize=9)
    axes.set_yticks(range(len(variants)), labels)
    axes.set_ylim(len(variants) - 0.5, -0.5)  # the first one on top
    axes.set_xlabel("distance to a perfect judge closed by Best-of-8, %")
    axes.set_title(
        f"{figures['test_cases']} test cases, {figures['training_seeds']} training seeds (ticks), 95 % intervals",
        fontsize="medium",
    )
    axes.grid(axis="x", alpha=0.3)
    picture = BytesIO()
    figure.savefig(picture, dpi=120)
    write_bytes(path, picture.getvalue())


def _labels(variants: dict[str, Any]) -> list[str]:
    """A variant's name; below it, where these differ, its language model's size and what its generator leaves open."""
    sizes, rooms = differ(variants, "language_model_parameters"), differ(variants, "generator_fingerprint")
    return [name + _size(found) * sizes + _room(found) * rooms for name, found in variants.items()]


def _size(found: dict[str, Any]) -> str:
    return f"\n{found['language_model_parameters'] / 1e6:.2f} M parameters"


def _room(found: dict[str, Any]) -> str:
    one, most = (100 * found[key]["estimate"] for key in ("best_of_1", "perfect_judge"))
    return f"\nright: one {one:.0f} %, perfect judge {most:.0f} %"
