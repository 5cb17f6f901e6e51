"""`python -m research`: rebuild the miniature's weights, the studies and the figures."""

import json
import sys
from pathlib import Path
from typing import Annotated

import typer
from typer import Argument, Option

from forejudge.cli.app import Commands
from forejudge.cli.progress import spinner
from forejudge.errors import InvalidRequest
from forejudge.files import write_json
from forejudge.options import MAX_COUNT

group = typer.Typer(
    cls=Commands,
    help="Rebuild the miniature's weights, the committed studies and the figures.",
    pretty_exceptions_enable=False,
    add_completion=False,
)

Device = Annotated[str | None, Option(help="cpu or cuda (default: cuda where there is one).")]


@group.command()
def study(
    name: Annotated[str, Argument(help="Choice to compare: layers, loss, captions, pooling, data, llm or generator.")],
    training_seeds: Annotated[
        int, Option(min=1, max=MAX_COUNT, help="Trainings of each variant, with seeds from 0.")
    ] = 3,
    steps: Annotated[int, Option(min=1, help="Steps of each training.")] = 700,
    seeds: Annotated[int, Option(min=1, max=MAX_COUNT, help="Seeds for each test case.")] = 1,
    per_task: Annotated[int, Option(min=1, max=MAX_COUNT, help="Test cases for each of the six tasks.")] = 100,
    build: Annotated[Path, Option(help="Folder of a finished build.")] = Path("runs/miniature"),
    out: Annotated[Path, Option(help="Folder for NAME.json and NAME.png.")] = Path("benchmarks/studies"),
    device: Device = None,
) -> None:
    """Train variants of the miniature's verifier and test them on its benchmark, for benchmarks/studies/.

    `llm` pre-trains its language models first; `generator` trains other generators, each tested on its own candidates.
    Both stay in the build's folder. A stopped study continues. `forejudge study` compares variants of any generator.
    """
    from forejudge.cli.progress import StageProgress
    from forejudge.cli.tables import print_study
    from forejudge.device import resolve_device
    from forejudge.report.study_plot import write_study_plot
    from research.miniature.recipe import miniature
    from research.studies.study import BenchmarkStudy, StudyBuilds, study_variants

    variants = study_variants(name)
    with StageProgress() as progress:
        builds = StudyBuilds(miniature(), build, resolve_device(device), progress.show).for_study(name)
        report = BenchmarkStudy(builds, variants, training_seeds, steps, seeds, per_task).run()
    report.write(out / f"{name}.json")
    write_study_plot(report, out / f"{name}.png")
    print_study(report)
    typer.echo(f"written to {out / name}.json and .png")


@group.command()
def build(
    only: Annotated[
        str | None,
        Option(
            help="Part to build: world, autoencoder, generator, language-model, clip, classifier, verifier, "
            "tiny-decoder or baselines (default: all)."
        ),
    ] = None,
    out: Annotated[Path, Option(help="Folder of the build.")] = Path("runs/miniature"),
    device: Device = None,
) -> None:
    """Train every weight of the miniature. A stopped build resumes."""
    from forejudge.cli.progress import StageProgress
    from forejudge.device import resolve_device
    from research.miniature.build import Build
    from research.miniature.recipe import miniature

    torch_device = resolve_device(device)
    with StageProgress() as progress:
        Build(miniature(), out, torch_device, progress.show).run(only)
    typer.echo(f"built in {out}; try: forejudge generate PROMPT --generator {out}/generator --verifier {out}/verifier")


@group.command()
def edges(
    generator: Annotated[str, Option(help="miniature or a folder.")] = "miniature",
    per_task: Annotated[int, Option(min=1, max=MAX_COUNT, help="Test cases for each of the six tasks.")] = 10,
    out: Annotated[Path, Option(help="The JSON file to write.")] = Path("benchmarks/miniature-edges.json"),
    device: Device = None,
) -> None:
    """Measure how sharp generated objects are, compared with rendered ones."""
    from forejudge.cli.progress import StageProgress
    from forejudge.device import resolve_device, resolve_dtype
    from forejudge.generators import load_generator
    from research.figures.edges import edge_figures

    model = load_generator(generator, resolve_device(device), resolve_dtype("float32"))
    with StageProgress() as progress:
        figures = edge_figures(model, per_task, progress.show)
    write_json(out, figures)
    typer.echo(json.dumps(figures, indent=1))


@group.command("time")
def measure(
    out: Annotated[Path, Option(help="The JSON file to write.")] = Path("benchmarks/miniature-time.json"),
    device: Device = None,
) -> None:
    """Measure the time of Best-of-8 and the deadline adherence on this machine."""
    from forejudge import BestOfN
    from forejudge.cli.progress import StageProgress
    from research.figures.timing import timing_figures

    with StageProgress() as progress:
        figures = timing_figures(BestOfN.from_pretrained(device=device), progress.show)
    write_json(out, figures)
    typer.echo(json.dumps(figures, indent=1))


@group.command()
def noise_gradient(
    verifier: Annotated[str, Option(help="A verifier that reads a hidden state: a name or a folder.")] = "miniature",
    second_evaluator: Annotated[
        str, Option(help="Evaluator whose verdicts no verifier was trained on.")
    ] = "classifier-miniature:runs/miniature/classifier",
    per_task: Annotated[int, Option(min=1, max=MAX_COUNT, help="Validation cases for each of the six tasks.")] = 100,
    out: Annotated[Path, Option(help="The JSON file to write; the plot is beside it.")] = Path(
        "benchmarks/noise-gradient.json"
    ),
    device: Device = None,
) -> None:
    """Move the noise of candidates up the verifier's gradient: score and quality against the step's radius."""
    from forejudge.cli.progress import StageProgress
    from forejudge.device import resolve_device, resolve_dtype
    from forejudge.evaluators.loading import load_evaluator
    from forejudge.generators import load_generator
    from forejudge.miniature.evaluator import MiniatureEvaluator
    from forejudge.verifiers import load_verifier
    from research.figures.noise_gradient import NoiseGradient, measure_noise_gradient, write_plot

    models = resolve_device(device), resolve_dtype("float32")
    gradient = NoiseGradient.of(load_generator("miniature", *models), load_verifier(verifier, *models))
    evaluators = MiniatureEvaluator(), load_evaluator(second_evaluator)
    with StageProgress() as progress:
        report = measure_noise_gradient(gradient, evaluators, per_task, progress.show)
    report.write(out)
    write_plot(report, out.with_suffix(".png"))
    typer.echo(f"written to {out} and {out.with_suffix('.png')}")


@group.command()
def images(
    out: Annotated[Path, Option(help="Folder for flow.png and gallery.png.")] = Path("docs/images"),
    device: Device = None,
) -> None:
    """Regenerate the images of the README."""
    from forejudge import BestOfN
    from research.figures.readme_images import write_readme_images

    with spinner("generating"):
        write_readme_images(BestOfN.from_pretrained(device=device), out)
    typer.echo(f"written to {out}")


@group.command()
def profile_plots(
    folders: Annotated[
        list[Path] | None, Argument(help="Folders of `forejudge profile` (default: the committed ones).")
    ] = None,
) -> None:
    """Redraw profile.png from profile.json."""
    from forejudge.config_files import read_config
    from forejudge.profiling.figures import Profile
    from forejudge.report.profile_plot import write_profile_plot

    for folder in folders or sorted(Path("benchmarks/profile").iterdir()):
        profile = read_config(folder / "profile.json", Profile)
        write_profile_plot(profile, folder / "profile.png")
        typer.echo(f"written to {folder / 'profile.png'}")


@group.command()
def by_eye(generator: Annotated[str, Option(help="miniature or a folder.")] = "miniature") -> None:
    """Generate 120 images for people to label, into tests/fixtures/by_eye."""
    from research.figures.by_eye import write_sheets

    with spinner("generating"):
        folder = write_sheets(generator)
    typer.echo(f"written to {folder}")


@group.command()
def projected_costs(
    folder: Annotated[Path, Argument(help="Finished folder of `forejudge eval`.")],
    verifier: Annotated[
        list[str], Option(help="Folder of a verifier of the evaluation; repeatable; the first one sets the budgets.")
    ],
    generator: Annotated[str, Option(help="Generator of the evaluation: miniature or a folder.")] = "miniature",
    figures: Annotated[Path, Option(help="Report to add to.")] = Path("benchmarks/miniature.json"),
) -> None:
    """Add the equal-cost tables by the FLOPs of SANA-Sprint 1.6B to an evaluation's report, with adaptive searches."""
    from forejudge.candidates.evaluation_store import EvaluationStore
    from forejudge.cli.tables import print_table
    from forejudge.device import resolve_device, resolve_dtype
    from forejudge.evaluation.report import FIXED, EvaluationReport
    from forejudge.evaluation.strategies import load_outcomes
    from forejudge.generators import load_generator
    from forejudge.report.tables import equal_cost, mean_cost
    from forejudge.simulation.families import RuleFamily
    from forejudge.simulation.recording import load_recording
    from forejudge.verifiers import load_verifier
    from research.figures.projected_costs import project_to_sana_sprint, projected_report

    report, evaluated = EvaluationReport.read(figures), EvaluationStore(folder)
    if report.settings != evaluated.settings:
        raise InvalidRequest(f"{figures} is not the report of {folder}: run `forejudge eval --figures {figures}` first")
    device = resolve_device("cpu"), resolve_dtype("float32")
    verifiers = {Path(each).name: load_verifier(each, *device) for each in verifier}
    if unknown := verifiers.keys() - report.verifiers.keys():
        raise InvalidRequest(
            f"{folder} has no verifier {', '.join(sorted(unknown))}: expected some of {', '.join(report.verifiers)}"
        )
    costs = project_to_sana_sprint(verifiers, load_generator(generator, *device).architecture.num_blocks)
    searched = dict.fromkeys(row.policy for row in report.equal_mean_time if row.verifier and row.policy != FIXED)
    recording = load_recording(folder) if searched else None
    projected = projected_report(load_outcomes(evaluated), costs, recording, list(map(RuleFamily.parse, searched)))
    report.model_copy(update={"projected": projected}).write(figures)
    print_table(equal_cost(f"Projected to {projected.generator}", "TFLOP", projected.equal_cost))
    if projected.equal_mean_cost:
        print_table(mean_cost("At equal mean cost", "TFLOP", projected.equal_mean_cost), details=False)
    typer.echo(f"written to {figures}")


if __name__ == "__main__":
    group(obj=sys.argv[1:])  # its commands check them
