"""`forejudge profile`: what picking the best of N costs, stage by stage and beside other ways to do it."""

from pathlib import Path
from typing import Annotated

import typer
from typer import Option

from forejudge.cli.compiled_cache import keep_compiled
from forejudge.cli.numbers import whole_numbers

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
        keep_compiled()
    numbers = whole_numbers("--n", n)
    budgets_ms = whole_numbers("--budget-ms", budget_ms) if budget_ms else ()
    from forejudge.cli.profile_tables import print_profile
    from forejudge.cli.progress import waiting
    from forejudge.cli.stage_progress import StageProgress
    from forejudge.device import resolve_device, resolve_dtype
    from forejudge.files import prepare_folder, write_text
    from forejudge.generators.base import Sampling
    from forejudge.profiling.profile import profile as measured
    from forejudge.profiling.profiled import load_profiled
    from forejudge.profiling.random_models import random_models
    from forejudge.profiling.strategy_profile import check_strategies

    check_strategies(strategy or ())
    where = resolve_device(device)
    precision = resolve_dtype(dtype, where)
    prepare_folder(out)
    make = random_models if random_weights else load_profiled
    named = (verifier or (_RANDOM_KINDS if random_weights else generator)).split(",")
    with waiting("making the models" if random_weights else "loading"):
        models = make(generator, named, Sampling(height=resolution, width=resolution), where, precision)
        models = models.compiled() if compiled else models
    with StageProgress() as progress:
        found = measured(models, numbers, rounds, strategy or (), progress.show, budgets_ms)
    write_text(out / "profile.json", found.model_dump_json(indent=1) + "\n")
    print_profile(found)
    from forejudge.cli.profile_plot import write_plot

    write_plot(found, out / "profile.png")
    typer.echo(f"written to {out / 'profile.json'} and .png")
