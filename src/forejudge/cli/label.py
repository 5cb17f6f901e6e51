"""`forejudge label`: candidates drawn, judged and kept, for a verifier to be trained on."""

import typer

from forejudge.cli import drawing, judge, options


def label(
    generator: drawing.Generator,
    prompts: drawing.Prompts,
    evaluator: judge.Evaluator,
    out: drawing.Out,
    candidates: drawing.CandidatesEach = 20,
    seed: drawing.Seed = 0,
    shard: drawing.ShardOf = "1/1",
    record: drawing.Record = None,
    vision_tower: drawing.VisionTower = None,
    device: options.Device = None,
    dtype: options.Dtype = None,
    batch_size: drawing.BatchSize = 8,
    detector: judge.Detector = None,
    color_model: judge.ColorModel = None,
) -> None:
    """Draw all candidates of many prompts, and say of each picture whether it is right."""
    how = drawing.DrawingOptions(candidates, seed, shard, record, vision_tower, batch_size)
    from forejudge.evaluation.evaluators import GenEvalModels, load_evaluator
    from forejudge.evaluation.prompts_file import read_prompts
    from forejudge.training.labels import LabelObserver, summarize

    lines = read_prompts(prompts)
    judged_by = load_evaluator(evaluator, GenEvalModels(detector, color_model, device))
    judged_by.check(lines)
    drawn_by = drawing.load(generator, device, dtype, out)
    folder = drawing.draw(drawn_by, lines, LabelObserver(judged_by), how, out)
    if folder is None:
        return
    summary = summarize(folder)
    typer.echo(f"{summary.rows} labelled candidates are in {out}, {summary.correct:.1%} of them are right")
    for task, share in summary.tasks.items():
        typer.echo(f"{task}: {share.rows}, {share.correct:.1%}")
