"""`forejudge eval`: compare verifiers on a benchmark, at equal N and at equal time."""

from pathlib import Path
from typing import Annotated

import typer
from typer import Argument, Option

from forejudge.cli import options
from forejudge.cli.common import echo, hold_output, print_licenses
from forejudge.cli.options import parse_ints
from forejudge.cli.progress import StageProgress, spinner
from forejudge.files import check_replaceable
from forejudge.options import MAX_COUNT, MAX_MS, MAX_STEPS

group = typer.Typer(help="Compare verifiers on a benchmark, at equal N and at equal time.", invoke_without_command=True)


@group.callback()
def evaluate(
    context: typer.Context,
    generator: Annotated[str, Option(help="Generator: miniature, a folder or a hub id.")] = "miniature",
    verifier: Annotated[
        list[str] | None,
        Option(
            help="Verifier: a folder, a hub id, clipscore:FOLDER or module:function; repeatable, the first sets the "
            "budgets (default: the generator's own)."
        ),
    ] = None,
    benchmark: Annotated[
        str, Option(help="Benchmark: geneval-miniature, or a file of prompts with GenEval's metadata.")
    ] = "geneval-miniature",
    evaluator: options.OptionalEvaluator = None,
    second_evaluator: options.SecondEvaluators = None,
    detector: options.Detector = None,
    color_model: options.ColorModel = None,
    n: Annotated[str, Option("--n", help="N of the tables, comma separated.")] = "1,2,4,8,16",
    budget_ms: Annotated[
        str | None,
        Option(help="Time budgets in ms, comma separated (default: the first verifier's times at N = 2, 4, 9, 15)."),
    ] = None,
    images_per_prompt: Annotated[int, Option(min=1, max=MAX_COUNT, help="Images per prompt.")] = 1,
    seeds: Annotated[int, Option(min=1, max=MAX_COUNT, help="Seeds per image.")] = 3,
    steps: Annotated[
        str | None, Option(help="Denoising steps of further baselines, comma separated, such as 2,4,8.")
    ] = None,
    baseline: Annotated[
        list[str] | None, Option(help="Another diffusers pipeline as a baseline, with --steps; repeatable.")
    ] = None,
    combine: Annotated[
        list[str] | None, Option(help="Combined verifiers, such as hidden,clip or hidden=1,clip=0.5; repeatable.")
    ] = None,
    controls: Annotated[
        bool, Option(help="Add the first verifier on shuffled and on zeroed hidden states as controls.")
    ] = False,
    record_for: Annotated[
        str | None,
        Option(
            metavar="simulate",
            help="simulate: record what `forejudge simulate` needs, the evaluation of each candidate's image after a "
            "second step and the costs of batches.",
        ),
    ] = None,
    adaptive: Annotated[
        list[str] | None,
        Option(
            metavar="OPTIONS",
            help="Searches that end by their verdicts, at the mean times of the first verifier's fixed N: until, price "
            "or n, which each budget sets, with refine_below, batch_size or a cap n, such as price,refine_below=0.9. "
            "With a value, as in price=0.012, at its own mean time. Repeatable.",
        ),
    ] = None,
    shard: Annotated[str, Option(help="This process's part, such as 1/4.")] = "1/1",
    out: Annotated[Path, Option(help="Output folder; an interrupted evaluation continues in it.")] = Path("runs/eval"),
    figures: Annotated[Path | None, Option(help="Further file for the report, beside OUT/figures.json.")] = None,
    device: Annotated[str | None, Option(help="Device: cpu, cuda or mps (default: the best there is).")] = None,
    dtype: Annotated[str, Option(help="Precision: auto, float32, bfloat16 or float16.")] = "auto",
) -> None:
    """Generate each case's candidates once, let every verifier choose among them, and report the accuracy of each."""
    if context.invoked_subcommand is not None:
        return

    from forejudge.cli.tables import print_report, show_warnings
    from forejudge.device import resolve_device, resolve_dtype
    from forejudge.evaluation.report import REPORT_FILE
    from forejudge.evaluation.suite import EvaluationOptions, Suite
    from forejudge.progress import Shard
    from forejudge.simulation.equal_mean_cost import add_equal_mean_time
    from forejudge.simulation.families import RuleFamily

    families = [RuleFamily.parse(each) for each in adaptive or ()]
    chosen = EvaluationOptions(
        generator=generator,
        verifiers=verifier or [generator],
        benchmark=benchmark,
        evaluator=evaluator,
        detector=detector,
        color_model=color_model,
        second_evaluators=second_evaluator or (),
        ns=parse_ints("--n", n),
        budgets_ms=parse_ints("--budget-ms", budget_ms, MAX_MS) if budget_ms else None,
        images_per_prompt=images_per_prompt,
        seeds=seeds,
        steps=parse_ints("--steps", steps, MAX_STEPS) if steps else (),
        baselines=baseline or (),
        combined=combine or (),
        controls=controls,
        record_for=record_for,
        policies=bool(families),
        refine_below=max((family.options.refine_below for family in families), default=0.0),
    )
    part = Shard.parse(shard)
    if figures:
        check_replaceable(figures)
    hold_output(out, part)
    with StageProgress() as progress:
        torch_device = resolve_device(device)
        with spinner("loading"):
            suite = Suite.load(chosen, out, torch_device, resolve_dtype(dtype, torch_device), progress.show)
        show_warnings([*suite.warnings, *(each for family in families for each in family.check(suite.timed_verifiers))])
        print_licenses(suite.sources)
        try:
            suite.run(part)
        except KeyboardInterrupt:
            raise KeyboardInterrupt("the same command continues with what is missing") from None
    if missing := suite.missing:
        echo(f"shard {part} is done; {missing} prompts are left to the other shards")
        return
    report = suite.report(chosen)
    if families:
        report = add_equal_mean_time(report, out, families)
    output_paths = [out / REPORT_FILE, *([figures] if figures else [])]  # `forejudge report` reads the first
    for path in output_paths:
        report.write(path)
    print_report(report)
    echo(f"written to {' and '.join(map(str, output_paths))}")


@group.command()
def merge(
    out: Annotated[Path, Argument(help="Folder of one part; the others are merged into it.")],
    parts: Annotated[list[Path], Argument(help="Folders of the other parts, made with other --shard.")],
) -> None:
    """Merge the parts of an evaluation that ran on several machines into the first folder."""
    from forejudge.candidates.evaluation_store import EvaluationStore
    from forejudge.evaluation.suite import merge_evaluation

    for part in parts:
        echo(f"{merge_evaluation(out, part)} prompts merged from {part}")
    missing = len(EvaluationStore(out).missing)
    echo(f"{missing} prompts are missing" if missing else "complete: run the same eval with --out to report")
