"""The page itself: what is on it and in which order. It needs no network and no file beside it."""

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from forejudge.evaluation.figures import PERFECT, RANDOM, Contents, Figures, Layer, read_layers
from forejudge.files import prepare_folder, write_bytes, write_text
from forejudge.report import plots, tables
from forejudge.report.gallery import data_uri, gallery
from forejudge.report.plots import DARK, LIGHT, Drawn, Plot

PAGE_FILE = "report.html"
_TEMPLATE = "page.html.jinja"


def write_report(folder: Path, out: Path, study: Path | None = None) -> Path:
    """The page of an evaluation's folder, and its plots as PNG and SVG beside it; where the page is.

    `study` is a file of layers, see `read_layers`. Raises CheckpointError for what cannot be read, OutputError.
    """
    contents, layers = Contents.read(folder), [] if study is None else read_layers(study)
    drawn = [plot.drawn() for plot in plots_of(contents, layers)]
    page = render(contents, drawn)
    prepare_folder(out)
    for plot in drawn:
        write_bytes(out / f"{plot.name}.png", plot.png)
        write_bytes(out / f"{plot.name}.svg", plot.light)
    write_text(out / PAGE_FILE, page)
    return out / PAGE_FILE


def plots_of(contents: Contents, layers: Sequence[Layer]) -> list[Plot]:
    """All plots for which there are figures."""
    figures, outcomes = contents.figures, contents.outcomes
    timed, judging = ", ".join(figures.costs.searches), ", ".join(figures.by_chooser())
    drawn = [
        Plot(
            "quality-against-time",
            f"Right pictures against milliseconds a prompt, a curve each for {timed}",
            partial(plots.quality_against_time, figures),
        ),
        Plot(
            "quality-against-n",
            f"Right pictures against the number of candidates, a line each for {judging}",
            partial(plots.quality_against_n, figures),
        ),
    ]
    if calibrated := ", ".join(outcomes.probability_CSN):
        alt = f"Share of right pictures against the probability given, a curve each for {calibrated}"
        drawn.append(Plot("calibration", alt, partial(plots.calibration, outcomes, figures)))
    if layers:
        cuts = f"{layers[0].cut} to {layers[-1].cut}"
        alt = f"Right pictures against the number of blocks before the verifier reads, {cuts}"
        drawn.append(Plot("quality-by-layer", alt, partial(plots.quality_by_layer, layers)))
    return drawn


def render(contents: Contents, drawn: Sequence[Drawn]) -> str:
    """The page as HTML. Raises CheckpointError for a picture that is missing or cannot be read."""
    figures = contents.figures
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["svg"] = partial(data_uri, "image/svg+xml")
    return environment.get_template(_TEMPLATE).render(
        figures=figures,
        head=_head(figures),
        first=next(iter(figures.verifiers)),
        on=_extent(figures),
        random=RANDOM,
        perfect=PERFECT,
        equal_time=tables.equal_cost(figures.equal_time, figures.plain, "ms", 0),
        equal_work=tables.equal_cost(figures.equal_work, figures.plain, "TFLOP", 1) if figures.equal_work else None,
        best_of_n=tables.best_of_n(figures),
        ranking=tables.ranking(figures),
        costs=tables.costs(figures.costs, figures.settings.reads),
        picture_reader=tables.picture_reader(figures.costs, figures.settings.reads),
        plots={plot.name: plot for plot in drawn},
        gallery=gallery(contents.folder),
        light=LIGHT,
        dark=DARK,
    )


def _head(figures: Figures) -> Mapping[str, str]:
    """What was tested, where and how."""
    settings, made = figures.settings, figures.made
    versions = [f"{name} {made[name]}" for name in ("forejudge", "torch", "diffusers", "transformers") if name in made]
    return {
        "Generator": f"{settings.generator} ({settings.dtype})",
        "Benchmark": settings.benchmark,
        "Evaluator": settings.evaluator,
        "Verifiers": ", ".join(settings.verifiers),
        "Cases": f"{figures.test_cases}, of {_count(figures.distinct_prompts, 'distinct prompt')}",
        "Seeds": str(figures.seeds),
        "Candidates": f"{settings.candidates} for each case and seed",
        "Device": made["device"],
        "Command": made["command"],
        "Commit": made["commit"],
        "Versions": ", ".join(versions),
    }


def _extent(figures: Figures) -> str:
    return f"{_count(figures.test_cases, 'case')}, {_count(figures.seeds, 'seed')}"


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'s' * (number != 1)}"
