"""Plot of a simulation: accuracy of each policy against its mean cost, beside fixed Best-of-N."""

from pathlib import Path

from forejudge.evaluation.report import FIXED
from forejudge.files import write_bytes
from forejudge.report.plots import LIGHT, Plot, Theme, add_legend, assign_styles, new_axes, use_log_costs
from forejudge.simulation.report import SimulatedRule, SimulationReport

try:
    from matplotlib.figure import Figure
except ImportError:
    from forejudge.errors import MissingExtra

    raise MissingExtra("matplotlib", "plots") from None


def write_simulation_plot(report: SimulationReport, path: Path) -> None:
    """Write the plot as PNG. Raises OutputError where it can't be written."""
    plot = Plot("simulation", "accuracy against mean cost", lambda theme: quality_against_cost(report, theme))
    write_bytes(path, plot.render().png)


def quality_against_cost(report: SimulationReport, theme: Theme = LIGHT) -> Figure:
    """Plot a curve for each policy, with and without second steps. Fixed Best-of-N has every N."""
    unit = "candidates" if report.unit == "candidates" else "milliseconds"
    figure, axes = new_axes(f"Mean cost per prompt, {unit}", "Accuracy, %")
    curves: dict[str, list[SimulatedRule]] = {}
    for rule in report.rules:
        curves.setdefault(_label(rule), []).append(rule)
    fixed = curves.pop(FIXED, [])
    styles = assign_styles([FIXED, *curves], theme)
    axes.plot(
        [point.mean_cost for point in report.fixed],
        [point.accuracy for point in report.fixed],
        label=FIXED,
        **{**styles[FIXED], "marker": ""},
    )
    axes.plot(
        [rule.mean_cost for rule in fixed],
        [rule.accuracy.micro.estimate for rule in fixed],
        **{**styles[FIXED], "linestyle": ""},
    )
    for name, rules in curves.items():
        ordered = sorted(rules, key=lambda rule: rule.mean_cost)
        costs, accuracies = [rule.mean_cost for rule in ordered], [rule.accuracy.micro.estimate for rule in ordered]
        axes.plot(costs, accuracies, label=name, **styles[name])
    use_log_costs(axes)
    add_legend(figure)
    return figure


def _label(rule: SimulatedRule) -> str:
    return f"{rule.policy}, second step" if "refine_below" in rule.options else rule.policy
