"""`forejudge eval`: verifiers on a benchmark, at equal N and at equal cost."""

from pathlib import Path
from typing import Annotated

import typer
from typer import Option

from forejudge.cli import judge
from forejudge.cli.numbers import whole_numbers

group = typer.Typer(help="Test verifiers on a benchmark, at equal N and at equal time.", invoke_without_command=True)


@group.callback()
def evaluate(
    context: typer.Context,
    generator: Annotated[str, Option(help="miniature, a folder or a hub id.")] = "miniature",
    verifier: Annotated[
        list[str] | None,
        Option(
            help="A folder, a hub id, clipscore:FOLDER or module:function; repeatable, the first sets the budgets "
            "(default: the generator's own)."
        ),
    ] = None,
    benchmark: Annotated[
        str, Option(help="geneval-miniature, or a file of prompts with GenEval's metadata.")
    ] = "geneval-miniature",
    evaluator: judge.OptionalEvaluator = None,
    second_evaluator: judge.SecondEvaluators = None,
    detector: judge.Detector = None,
    color_model: judge.ColorModel = None,
    n: Annotated[str, Option("--n", help="The N of the tables, comma separated.")] = "1,2,4,8,16",
    budget_ms: Annotated[
        str | None,
        Option(help="Budgets, comma separated (default: what the first verifier takes with N = 2, 4, 9, 15)."),
    ] = None,
    images_per_prompt: Annotated[int, Option(min=1, help="Images of each prompt.")] = 1,
    seeds: Annotated[int, Option(min=1, help="Seeds for each image.")] = 3,
    steps: Annotated[str | None, Option(help="More denoising steps instead, comma separated, such as 2,4,8.")] = None,
    baseline: Annotated[
        list[str] | None, Option(help="Another diffusers pipeline as a plain row, with --steps; repeatable.")
    ] = None,
    combine: Annotated[
        list[str] | None, Option(help="Verifiers together, such as hidden,clip or hidden=1,clip=0.5; repeatable.")
    ] = None,
    controls: Annotated[
        bool, Option(help="Beside the first verifier what it says of shuffled and zeroed states.")
    ] = False,
    shard: Annotated[str, Option(help="This process's part, such as 1/4.")] = "1/1",
    out: Annotated[Path, Option(help="The folder; a stopped evaluation goes on in it.")] = Path("runs/eval"),
    figures: Annotated[Path | None, Option(help="All figures once more, beside OUT/figures.json, as JSON.")] = None,
    device: Annotated[str | None, Option(help="cpu, cuda or mps (default: cuda or mps where there is one).")] = None,
    dtype: Annotated[str, Option(help="auto, float32, bfloat16 or float16.")] = "auto",
) -> None:
    """Draw each image's candidates once, let every verifier choose, and write what each reaches."""
    if context.invoked_subcommand is not None:
        return
    from forejudge.cli.evaluation import Asked

    asked = Asked(
        generator=generator,
        verifiers=tuple(verifier or [generator]),
        benchmark=benchmark,
        judge=(evaluator, detector, color_model),
        ns=tuple(whole_numbers("--n", n)),
        budgets_ms=tuple(whole_numbers("--budget-ms", budget_ms)) if budget_ms else None,
        images_per_prompt=images_per_prompt,
        seeds=seeds,
        steps=tuple(whole_numbers("--steps", steps)) if steps else (),
        baselines=tuple(baseline or ()),
        combined=tuple(combine or ()),
        controls=controls,
        second_evaluators=tuple(second_evaluator or ()),
    )
    asked.run(out, shard, figures, device, dtype)


@group.command()
def merge(
    out: Annotated[Path, typer.Argument(help="The folder of one part.")],
    parts: Annotated[list[Path], typer.Argument(help="The folders of the others, drawn with other --shard.")],
) -> None:
    """Bring the parts of an evaluation that were drawn on several machines together in the first folder."""
    from forejudge.evaluation.evaluation_folder import EvaluationFolder
    from forejudge.evaluation.suite import take_over

    for part in parts:
        typer.echo(f"{take_over(out, part)} prompts taken over from {part}")
    left = len(EvaluationFolder(out).missing)
    typer.echo(f"{left} prompts are missing" if left else "complete: the same eval with --out writes the figures")
