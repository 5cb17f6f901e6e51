"""`forejudge label`: candidates drawn, judged and kept, for a verifier to be trained on."""

from typing import Annotated

import typer
from typer import Option

from forejudge.cli import drawing, options


def label(
    generator: drawing.Generator,
    prompts: drawing.Prompts,
    evaluator: Annotated[
        str,
        Option(
            metavar="NAME|COMMAND",
            help="geneval-miniature, or a command: for each JSON line on its stdin with image (a path), prompt and "
            "metadata, it answers with a JSON line that has correct (true or false), and may have reason and "
            "detections.",
        ),
    ],
    out: drawing.Out,
    candidates: drawing.CandidatesEach = 20,
    seed: drawing.Seed = 0,
    shard: drawing.ShardOf = "1/1",
    record: drawing.Record = None,
    device: options.Device = None,
    dtype: options.Dtype = None,
    batch_size: drawing.BatchSize = 8,
) -> None:
    """Draw all candidates of many prompts, and say of each picture whether it is right."""
    how = drawing.DrawingOptions(candidates, seed, shard, record, batch_size)
    from forejudge.evaluation.evaluators import load_evaluator
    from forejudge.evaluation.prompts_file import read_prompts
    from forejudge.training.labels import LabelObserver, summarize

    lines, judge = read_prompts(prompts), load_evaluator(evaluator)
    judge.check(lines)
    drawn_by = drawing.load(generator, device, dtype, out)
    folder = drawing.draw(drawn_by, lines, LabelObserver(judge), how, out)
    if folder is None:
        return
    summary = summarize(folder)
    typer.echo(f"{summary.rows} labelled candidates are in {out}, {summary.correct:.1%} of them are right")
    for task, share in summary.tasks.items():
        typer.echo(f"{task}: {share.rows}, {share.correct:.1%}")
