"""A study as a plot: the distance closed by each variant, with its interval and every training seed's own value."""

from pathlib import Path
from typing import Any

from forejudge.cli.tables import variants_differ
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
    for row, variant in enumerate(variants.values()):
        gap_closed = {end: 100 * variant["oracle_gap_closed"][end] for end in ("estimate", "low", "high")}
        axes.plot([gap_closed["low"], gap_closed["high"]], [row, row], color="tab:blue", linewidth=2)
        axes.plot(gap_closed["estimate"], row, "o", color="tab:blue")
        each = [100 * value for value in variant["oracle_gap_closed_per_seed"]]
        axes.plot(each, [row] * len(each), "|", color="black", markersize=9)
    axes.set_yticks(range(len(variants)), labels)
    axes.set_ylim(len(variants) - 0.5, -0.5)  # the first one on top
    axes.set_xlabel("distance to a perfect judge closed by Best-of-8, %")
    axes.set_title(
        f"{figures['test_cases']} test cases, {figures['training_seeds']} training seeds (ticks), 95 % intervals",
        fontsize="medium",
    )
    axes.grid(axis="x", alpha=0.3)
    image = BytesIO()
    figure.savefig(image, dpi=120)
    write_bytes(path, image.getvalue())


def _labels(variants: dict[str, Any]) -> list[str]:
    """A variant's name; below it, where these differ, its language model's size and what its generator leaves open."""
    sizes, headrooms = (
        variants_differ(variants, "language_model_parameters"),
        variants_differ(variants, "generator_fingerprint"),
    )
    return [name + _size(variant) * sizes + _headroom(variant) * headrooms for name, variant in variants.items()]


def _size(variant: dict[str, Any]) -> str:
    return f"\n{variant['language_model_parameters'] / 1e6:.2f} M parameters"


def _headroom(variant: dict[str, Any]) -> str:
    one, oracle = (100 * variant[key]["estimate"] for key in ("best_of_1", "oracle"))
    return f"\nright: one {one:.0f} %, perfect judge {oracle:.0f} %"
