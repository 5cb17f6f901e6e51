"""The page itself: what is on it and in which order. It needs no network and no file beside it."""

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from forejudge.evaluation.figures import ORACLE, RANDOM, Contents, EvaluationMetrics, LayerResult, read_layers
from forejudge.files import prepare_folder, write_bytes, write_text
from forejudge.report import plots, tables
from forejudge.report.gallery import data_uri, gallery
from forejudge.report.plots import DARK, LIGHT, Plot, RenderedPlot

PAGE_FILE = "report.html"
_TEMPLATE = "page.html.jinja"


def write_report(folder: Path, out: Path, study: Path | None = None) -> Path:
    """The page of an evaluation's folder, and its plots as PNG and SVG beside it; where the page is.

    `study` is a file of layers, see `read_layers`. Raises CheckpointError for what cannot be read, OutputError.
    """
    contents, layers = Contents.read(folder), [] if study is None else read_layers(study)
    rendered = [plot.render() for plot in make_plots(contents, layers)]
    page = render(contents, rendered)
    prepare_folder(out)
    for plot in rendered:
        write_bytes(out / f"{plot.name}.png", plot.png)
        write_bytes(out / f"{plot.name}.svg", plot.light)
    write_text(out / PAGE_FILE, page)
    return out / PAGE_FILE


def make_plots(contents: Contents, layers: Sequence[LayerResult]) -> list[Plot]:
    """All plots for which there are figures."""
    metrics, outcomes = contents.metrics, contents.outcomes
    timed_text, strategies_text = ", ".join(metrics.costs.searches), ", ".join(metrics.by_strategy())
    rendered = [
        Plot(
            "quality-against-time",
            f"Right pictures against milliseconds a prompt, a curve each for {timed_text}",
            partial(plots.quality_against_time, metrics),
        ),
        Plot(
            "quality-against-n",
            f"Right pictures against the number of candidates, a line each for {strategies_text}",
            partial(plots.quality_against_n, metrics),
        ),
    ]
    if calibrated := ", ".join(outcomes.probability_CSN):
        alt = f"Share of right pictures against the probability given, a curve each for {calibrated}"
        rendered.append(Plot("calibration", alt, partial(plots.calibration, outcomes, metrics)))
    if layers:
        block_range = f"{layers[0].num_prefix_blocks} to {layers[-1].num_prefix_blocks}"
        alt = f"Right pictures against the number of blocks before the verifier reads, {block_range}"
        rendered.append(Plot("quality-by-layer", alt, partial(plots.quality_by_layer, layers)))
    return rendered


def render(contents: Contents, rendered: Sequence[RenderedPlot]) -> str:
    """The page as HTML. Raises CheckpointError for a picture that is missing or cannot be read."""
    metrics = contents.metrics
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["svg"] = partial(data_uri, "image/svg+xml")
    return environment.get_template(_TEMPLATE).render(
        metrics=metrics,
        head=_summary(metrics),
        first=next(iter(metrics.verifiers)),
        on=_extent(metrics),
        random=RANDOM,
        oracle=ORACLE,
        equal_time=tables.equal_cost(metrics.equal_time, metrics.baselines, "ms", 0),
        equal_projected_cost=tables.equal_cost(metrics.equal_projected_cost, metrics.baselines, "TFLOP", 1)
        if metrics.equal_projected_cost
        else None,
        best_of_n=tables.best_of_n(metrics),
        ranking=tables.ranking(metrics),
        costs=tables.costs(metrics.costs, metrics.settings.reads),
        image_verifier=tables.image_verifier(metrics.costs, metrics.settings.reads),
        plots={plot.name: plot for plot in rendered},
        gallery=gallery(contents.folder),
        light=LIGHT,
        dark=DARK,
    )


def _summary(metrics: EvaluationMetrics) -> Mapping[str, str]:
    """What was tested, where and how."""
    settings, provenance = metrics.settings, metrics.provenance
    versions = [
        f"{name} {provenance[name]}"
        for name in ("forejudge", "torch", "diffusers", "transformers")
        if name in provenance
    ]
    return {
        "Generator": f"{settings.generator} ({settings.dtype})",
        "Benchmark": settings.benchmark,
        "Evaluator": settings.evaluator,
        "Verifiers": ", ".join(settings.verifiers),
        "Cases": f"{metrics.test_cases}, of {_count(metrics.distinct_prompts, 'distinct prompt')}",
        "Seeds": str(metrics.seeds),
        "Candidates": f"{settings.candidates} for each case and seed",
        "Device": provenance["device"],
        "Command": provenance["command"],
        "Commit": provenance["commit"],
        "Versions": ", ".join(versions),
    }


def _extent(metrics: EvaluationMetrics) -> str:
    return f"{_count(metrics.test_cases, 'case')}, {_count(metrics.seeds, 'seed')}"


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'s' * (number != 1)}"
