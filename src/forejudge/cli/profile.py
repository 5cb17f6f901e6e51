"""`forejudge profile`: what picking the best of N costs, stage by stage and beside other ways to do it."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from typer import Option

from forejudge.cli.common import use_compile_cache
from forejudge.cli.options import parse_ints
from forejudge.files import write_bytes
from forejudge.profiling.figures import Profile, TimingWithRoofline
from forejudge.profiling.stages import ENCODE
from forejudge.report.plots import Plot, Style, Theme, assign_styles

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


# FOLDED: A profile as a plot: time by N of every stage and of every way to pick, each with its floor below.


_ALT_TEXT = "Milliseconds by number of candidates, with floors: stages above, whole searches below"


def write_plot(profile_result: Profile, path: Path) -> None:
    """As PNG. Raises OutputError where it cannot be written."""
    write_bytes(path, Plot(path.stem, _ALT_TEXT, lambda theme: _draw(profile_result, theme)).render().png)


def _draw(profile_result: Profile, theme: Theme) -> "Figure":
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 7.5), layout="constrained")
    upper, lower = figure.subplots(2, 1, sharex=True)
    batched = {name: stage.measurements for name, stage in profile_result.stages.items() if name != ENCODE}
    _curve(
        upper,
        ENCODE,
        profile_result.stages[ENCODE].measurements,
        {"color": theme.foreground, "marker": "X", "linestyle": ""},
    )
    _curves(upper, batched, theme)
    _curves(lower, {figures.name: figures.measurements for figures in profile_result.strategies}, theme)
    upper.set_title("Stages by themselves", fontsize="medium")
    lower.set_title("From the prompt to the picture", fontsize="medium")
    ns = profile_result.settings.ns
    lower.set_xscale("log", base=2)
    lower.set_xticks(ns, [str(n) for n in ns])
    lower.minorticks_off()
    lower.set_xlabel("N, candidates")
    figure.suptitle(
        f"{profile_result.settings.models}; figures {profile_result.settings.device_note}\nline: median, band: quartiles, dots below: floor",
        fontsize="medium",
    )
    return figure


def _curves(axes: "Axes", curves: Mapping[str, Mapping[int, TimingWithRoofline]], theme: Theme) -> None:
    from matplotlib.ticker import FormatStrFormatter, LogLocator, NullLocator

    styles = assign_styles(curves, theme)
    for name, at in curves.items():
        _curve(axes, name, at, styles[name])
    axes.set_yscale("log")
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.yaxis.set_major_formatter(FormatStrFormatter("%g"))
    axes.yaxis.set_minor_locator(NullLocator())
    axes.set_ylabel("Milliseconds")
    axes.legend(loc="center left", bbox_to_anchor=(1, 0.5))


def _curve(axes: "Axes", name: str, at: Mapping[int, TimingWithRoofline], style: Style) -> None:
    ns, timings = list(at), [measured.milliseconds for measured in at.values()]
    axes.plot(ns, [timing.median for timing in timings], label=name, **style)
    low, high = [timing.lower_quartile for timing in timings], [timing.upper_quartile for timing in timings]
    axes.fill_between(ns, low, high, color=style["color"], alpha=0.16, linewidth=0)
    rooflines = [measured.roofline_ms for measured in at.values()]
    axes.plot(ns, rooflines, color=style["color"], linewidth=0.9, linestyle=":", marker=".", markersize=3)


_RANDOM_KINDS = "hidden,clip,latent"


def profile(
    generator: Annotated[
        str,
        Option(help="miniature, a folder or a hub id; with --random-weights sana-sprint-1.6b or sana-sprint-small."),
    ] = "miniature",
    random_weights: Annotated[
        bool, Option("--random-weights", help="Make models of known sizes here, without any file.")
    ] = False,
    verifier: Annotated[
        str | None,
        Option(
            metavar="LIST",
            help="Names, folders or hub ids, comma separated, one for each of hidden, latent and clip (default: the "
            f"generator's own); with --random-weights which of these three (default: {_RANDOM_KINDS}).",
        ),
    ] = None,
    n: Annotated[str, Option("--n", metavar="LIST", help="Numbers of candidates, comma separated.")] = "1,2,4,8,16,32",
    strategy: Annotated[
        list[str] | None,
        Option(help="official, decode-all or forejudge; repeatable (default: all that have a verifier)."),
    ] = None,
    resolution: Annotated[
        int | None, Option(min=1, help="Side of the pictures in pixels (default: the generator's own).")
    ] = None,
    rounds: Annotated[int, Option(min=1, help="Of which the median and the quartiles are shown.")] = 7,
    budget_ms: Annotated[
        str | None,
        Option(metavar="LIST", help="Time budgets, comma separated: how well 100 searches keep each of them."),
    ] = None,
    out: Annotated[Path, Option(metavar="DIR", help="The folder for profile.json and profile.png.")] = Path(
        "runs/profile"
    ),
    device: Annotated[str | None, Option(help="cpu, cuda or mps (default: cuda or mps where there is one).")] = None,
    compiled: Annotated[bool, Option("--compile", help="Compile the models, for all strategies but official.")] = False,
    dtype: Annotated[str, Option(help="auto, float32, bfloat16 or float16.")] = "auto",
) -> None:
    """Measure time, operations and memory of every stage and of whole searches, beside the least there could be."""
    if compiled:
        use_compile_cache()
    ns = parse_ints("--n", n)
    budgets_ms = parse_ints("--budget-ms", budget_ms) if budget_ms else ()
    from forejudge.cli.progress import StageProgress, spinner
    from forejudge.cli.tables import print_profile
    from forejudge.device import resolve_device, resolve_dtype
    from forejudge.files import prepare_folder, write_text
    from forejudge.generators.base import SamplingParams
    from forejudge.profiling.models import load_profiled_models, random_models
    from forejudge.profiling.profile import check_strategies
    from forejudge.profiling.profile import profile as measured

    check_strategies(strategy or ())
    torch_device = resolve_device(device)
    torch_dtype = resolve_dtype(dtype, torch_device)
    prepare_folder(out)
    load_models = random_models if random_weights else load_profiled_models
    verifier_names = (verifier or (_RANDOM_KINDS if random_weights else generator)).split(",")
    with spinner("making the models" if random_weights else "loading"):
        models = load_models(
            generator, verifier_names, SamplingParams(height=resolution, width=resolution), torch_device, torch_dtype
        )
        models = models.compiled() if compiled else models
    with StageProgress() as progress:
        profile_result = measured(models, ns, rounds, strategy or (), progress.show, budgets_ms)
    write_text(out / "profile.json", profile_result.model_dump_json(indent=1) + "\n")
    print_profile(profile_result)

    write_plot(profile_result, out / "profile.png")
    typer.echo(f"written to {out / 'profile.json'} and .png")
