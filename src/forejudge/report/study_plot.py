"""Plot of a study: the oracle gap closed by each variant, with its interval and each training seed's own value."""

from io import BytesIO
from pathlib import Path

from forejudge.errors import MissingExtra
from forejudge.evaluation.study_report import StudyReport, VariantReport
from forejudge.files import write_bytes


def write_study_plot(report: StudyReport, path: Path) -> None:
    """Write the plot as PNG. Raises MissingExtra without matplotlib, OutputError where it can't be written."""
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise MissingExtra("matplotlib", "plots") from None

    labels = _labels(report)
    figure = Figure(
        figsize=(7, 0.8 + sum(0.3 + 0.15 * len(label.split("\n")) for label in labels)), layout="constrained"
    )
    axes = figure.subplots()
    for row, variant in enumerate(report.variants.values()):
        closed = variant.oracle_gap_closed
        axes.plot([100 * closed.low, 100 * closed.high], [row, row], color="tab:blue", linewidth=2)
        axes.plot(100 * closed.estimate, row, "o", color="tab:blue")
        per_seed = [100 * value for value in variant.oracle_gap_closed_per_seed]
        axes.plot(per_seed, [row] * len(per_seed), "|", color="black", markersize=9)
    axes.set_yticks(range(len(labels)), labels, parse_math=False)  # a name with two $ is no formula
    axes.set_ylim(len(labels) - 0.5, -0.5)  # the first one on top
    axes.set_xlabel(f"oracle gap closed by Best-of-{report.n}, %")
    axes.set_title(
        f"{report.test_cases} test cases, {report.training_seeds} training seeds (ticks), 95 % intervals",
        fontsize="medium",
    )
    axes.grid(axis="x", alpha=0.3)
    image = BytesIO()
    figure.savefig(image, dpi=120)
    write_bytes(path, image.getvalue())


def _labels(report: StudyReport) -> list[str]:
    """Label variants by name; where these differ, with the language model's size and what the candidates allow."""
    sizes = report.varies(lambda variant: variant.language_model_parameters)
    headrooms = report.varies(lambda variant: (variant.best_of_1, variant.oracle))
    return [
        name + (_size(variant) if sizes else "") + (_headroom(variant) if headrooms else "")
        for name, variant in report.variants.items()
    ]


def _size(variant: VariantReport) -> str:
    parameters = variant.language_model_parameters
    return "" if parameters is None else f"\n{parameters / 1e6:.2f} M parameters"


def _headroom(variant: VariantReport) -> str:
    if variant.best_of_1 is None or variant.oracle is None:
        return ""
    return f"\nright: one {100 * variant.best_of_1.estimate:.0f} %, oracle {100 * variant.oracle.estimate:.0f} %"
