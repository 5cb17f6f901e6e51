"""The HTML report: one file that needs no network, and its plots as PNG and SVG beside it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from forejudge.candidates.evaluation_store import EvaluationStore
from forejudge.errors import CheckpointError, printable
from forejudge.evaluation.report import ORACLE, RANDOM, REPORT_FILE, EvaluationReport
from forejudge.evaluation.strategies import Outcomes, load_outcomes
from forejudge.evaluation.study_report import StudyReport
from forejudge.files import output_folder, write_bytes, write_text
from forejudge.report import plots, tables
from forejudge.report.gallery import data_uri, gallery
from forejudge.report.plots import DARK, LIGHT, Plot, RenderedPlot

PAGE_FILE = "report.html"
_TEMPLATE = "page.html.jinja"


@dataclass(frozen=True)
class Contents:
    """A finished evaluation: its folder, its report, and its candidates as arrays."""

    folder: EvaluationStore
    report: EvaluationReport
    outcomes: Outcomes

    @classmethod
    def read(cls, path: Path) -> "Contents":
        """Read a folder. Raises CheckpointError where it holds no evaluation, isn't finished or can't be read."""
        folder = EvaluationStore(path)
        outcomes, report = load_outcomes(folder), EvaluationReport.read(path / REPORT_FILE)
        if report.settings != folder.settings:
            raise CheckpointError(
                f"{path / REPORT_FILE} is of another evaluation: run `forejudge eval` on {path} again"
            )
        return cls(folder, report, outcomes)


def write_report(folder: Path, out: Path, study: Path | None = None) -> Path:
    """Write the page of an evaluation's folder and its plots; return the path of the page.

    `study` is a study's report whose variants read after different numbers of blocks. Raises CheckpointError for what
    can't be read, and OutputError.
    """
    contents, layers = Contents.read(folder), None if study is None else StudyReport.read(study)
    rendered = [plot.render() for plot in make_plots(contents, layers)]
    page = render(contents, rendered)
    with output_folder(out):
        for plot in rendered:
            write_bytes(out / f"{plot.name}.png", plot.png)
            write_bytes(out / f"{plot.name}.svg", plot.light)
        write_text(out / PAGE_FILE, page)
    return out / PAGE_FILE


def make_plots(contents: Contents, study: StudyReport | None = None) -> list[Plot]:
    """Return all plots for which there are figures."""
    report, outcomes = contents.report, contents.outcomes
    timed_text, strategies_text = ", ".join(report.costs.searches), ", ".join(report.by_strategy())
    all_plots = [
        Plot(
            "quality-against-time",
            f"Accuracy against milliseconds per prompt, one curve each for {timed_text}",
            partial(plots.quality_against_time, report),
        ),
        Plot(
            "quality-against-n",
            f"Accuracy against the number of candidates, one line each for {strategies_text}",
            partial(plots.quality_against_n, report),
        ),
    ]
    if report.equal_mean_time:
        alt = (
            "Accuracy against mean milliseconds per prompt: fixed Best-of-N beside searches that end by their verdicts"
        )
        all_plots.append(Plot("quality-against-mean-time", alt, partial(plots.quality_against_mean_time, report)))
    if calibrated := ", ".join(outcomes.probability_CSN):
        alt = f"Accuracy against the predicted probability, one curve each for {calibrated}"
        all_plots.append(Plot("calibration", alt, partial(plots.calibration, outcomes, report)))
    if layers := study.by_blocks() if study else []:
        alt = f"Accuracy against the number of blocks before the verifier reads, {layers[0][0]} to {layers[-1][0]}"
        all_plots.append(Plot("quality-by-layer", alt, partial(plots.quality_by_layer, layers)))
    return all_plots


def render(contents: Contents, rendered: Sequence[RenderedPlot]) -> str:
    """Render the page as HTML. Raises CheckpointError for an image that is missing or can't be read."""
    report = contents.report
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        finalize=_printable,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["svg"] = partial(data_uri, "image/svg+xml")
    names = {name: f"no verifier, {name}" for name in report.baselines}
    projected = report.projected
    return environment.get_template(_TEMPLATE).render(
        report=report,
        summary=_summary(report),
        first=next(iter(report.verifiers)),
        test_set=f"{_count(report.test_cases, 'case')}, {_count(report.seeds, 'seed')}",
        random=RANDOM,
        oracle=ORACLE,
        equal_time=tables.equal_cost("At equal time", "ms", report.equal_time, names, task_intervals=True),
        competitor_time=report.competitor_time
        and tables.competitors("At the time of the others", "ms", report.competitor_time, names),
        equal_mean_time=report.equal_mean_time
        and tables.mean_cost("At equal mean time", "ms", report.equal_mean_time, names),
        equal_projected_mean_cost=projected
        and projected.equal_mean_cost
        and tables.mean_cost("At equal projected mean cost", "TFLOP", projected.equal_mean_cost, names),
        equal_projected_cost=projected
        and tables.equal_cost("At equal projected cost", "TFLOP", projected.equal_cost, names, task_intervals=True),
        best_of_n=tables.best_of_n("Quality against N", report.best_of_n),
        ranking=tables.ranking(report),
        costs=tables.costs(report.costs, report.settings.reads),
        image_verifier=tables.image_verifier(report.costs, report.settings.reads),
        plots={plot.name: plot for plot in rendered},
        gallery=gallery(contents.folder),
        light=LIGHT,
        dark=DARK,
    )


def _printable(value: object) -> object:
    """Escape what reorders or hides text, such as prompts may hold; markup of the template stays."""
    return printable(value) if isinstance(value, str) and not hasattr(value, "__html__") else value


def _summary(report: EvaluationReport) -> Mapping[str, str]:
    """Return what was evaluated, where and how, by heading."""
    settings, made_by = report.settings, report.provenance
    packages = ("forejudge", "torch", "diffusers", "transformers")
    return {
        "Generator": f"{settings.generator} ({settings.dtype})",
        "Benchmark": settings.benchmark,
        "Evaluator": settings.evaluator,
        "Verifiers": ", ".join(settings.verifiers),
        "Cases": f"{report.test_cases}, of {_count(report.distinct_prompts, 'distinct prompt')}",
        "Seeds": str(report.seeds),
        "Candidates": f"{settings.candidates} per case and seed",
        "Device": made_by["device"],
        "Command": made_by["command"],
        "Commit": made_by["commit"],
        "Versions": ", ".join(f"{name} {made_by[name]}" for name in packages if name in made_by),
    }


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'s' * (number != 1)}"
