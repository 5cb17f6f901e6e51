"""`forejudge profile`: cost of choosing the best of N, stage by stage and beside other strategies."""

from pathlib import Path
from typing import Annotated

from typer import Option

from forejudge.cli.common import echo, hold_output, use_compile_cache
from forejudge.cli.options import parse_ints
from forejudge.options import MAX_COUNT, MAX_MS

_RANDOM_KINDS = "hidden,clip,latent"


def profile(
    generator: Annotated[
        str,
        Option(help="Known generator, folder or hub id; with --random-weights sana-sprint-1.6b or sana-sprint-small."),
    ] = "miniature",
    random_weights: Annotated[
        bool, Option("--random-weights", help="Make models of published sizes without any file.")
    ] = False,
    verifier: Annotated[
        str | None,
        Option(
            metavar="LIST",
            help="Names, folders or hub ids, comma separated, at most one for each of hidden, latent, clip and "
            "preview (default: the generator's own; without one only its stages are measured). With --random-weights a "
            f"list of these kinds (default: {_RANDOM_KINDS}).",
        ),
    ] = None,
    n: Annotated[str, Option("--n", metavar="LIST", help="Numbers of candidates, comma separated.")] = "1,2,4,8,16,32",
    strategy: Annotated[
        list[str] | None,
        Option(help="official, decode-all or forejudge; repeatable (default: all that have a verifier)."),
    ] = None,
    resolution: Annotated[
        int | None, Option(min=1, help="Side of the images in pixels (default: the generator's own).")
    ] = None,
    rounds: Annotated[int, Option(min=1, max=MAX_COUNT, help="Rounds to take the median and the quartiles of.")] = 7,
    budget_ms: Annotated[
        str | None,
        Option(
            metavar="LIST",
            help="Time budgets in milliseconds, comma separated, each met by 100 searches (default: none).",
        ),
    ] = None,
    out: Annotated[Path, Option(metavar="DIR", help="Folder for profile.json and profile.png.")] = Path("runs/profile"),
    device: Annotated[str | None, Option(help="cpu, cuda or mps (default: cuda or mps if available).")] = None,
    compiled: Annotated[
        bool, Option("--compile", help="Compile the models for all strategies except official.")
    ] = False,
    dtype: Annotated[str, Option(help="auto, float32, bfloat16 or float16.")] = "auto",
) -> None:
    """Measure time, FLOPs and memory of every stage and of whole searches, beside the roofline."""
    if compiled:
        use_compile_cache()
    ns = parse_ints("--n", n)
    budgets_ms = parse_ints("--budget-ms", budget_ms, MAX_MS) if budget_ms else ()
    from forejudge.cli.progress import StageProgress, spinner
    from forejudge.cli.tables import print_profile
    from forejudge.device import resolve_device, resolve_dtype
    from forejudge.files import write_text
    from forejudge.generators import find_spec
    from forejudge.profiling.models import load_profiled_models
    from forejudge.profiling.profile import check_strategies
    from forejudge.profiling.profile import profile as measure_profile
    from forejudge.profiling.sizes import random_models

    check_strategies(strategy or ())
    torch_device = resolve_device(device)
    torch_dtype = resolve_dtype(dtype, torch_device)
    hold_output(out)
    spec = find_spec(generator)
    own_verifier = spec.name if spec and spec.verifier else ""
    verifiers = (verifier or (_RANDOM_KINDS if random_weights else own_verifier)).split(",")
    load_models = random_models if random_weights else load_profiled_models
    with spinner("making the models" if random_weights else "loading"):
        names = [name for name in verifiers if name]
        models = load_models(generator, names, resolution, torch_device, torch_dtype)
        models = models.compiled() if compiled else models
    with StageProgress() as progress:
        result = measure_profile(models, ns, rounds, strategy or (), progress.show, budgets_ms)
    write_text(out / "profile.json", result.model_dump_json(indent=1) + "\n")
    print_profile(result)
    from forejudge.report.profile_plot import write_profile_plot

    write_profile_plot(result, out / "profile.png")
    echo(f"written to {out / 'profile.json'} and .png")
