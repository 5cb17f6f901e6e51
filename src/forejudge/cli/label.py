"""`forejudge label`: candidates drawn, judged and kept, for a verifier to be trained on."""

import typer

from forejudge.cli import drawing, judge, options
from forejudge.cli.dry_run import DryRun


def label(
    prompts: drawing.Prompts,
    out: drawing.Out,
    recipe: drawing.RecipeName = None,
    generator: drawing.Generator = None,
    evaluator: judge.EvaluatorOfRecipe = None,
    candidates: drawing.CandidatesEach = None,
    seed: drawing.Seed = 0,
    shard: drawing.ShardOf = "1/1",
    record: drawing.Record = None,
    vision_tower: drawing.VisionTower = None,
    device: options.Device = None,
    dtype: options.Dtype = None,
    batch_size: drawing.BatchSize = 8,
    detector: judge.Detector = None,
    color_model: judge.ColorModel = None,
    dry_run: DryRun = False,
) -> None:
    """Draw all candidates of many prompts, and say of each picture whether it is right."""
    from forejudge.evaluation.evaluators import GenEvalModels, load_evaluator
    from forejudge.evaluation.prompts_file import read_prompts
    from forejudge.training.known_recipes import known_recipe
    from forejudge.training.labels import LabelObserver, summarize
    from forejudge.training.recipe import LabelRecipe
    from forejudge.training.recipe_changes import with_options

    known = known_recipe(recipe).label if recipe else None
    given = {"generator": generator, "evaluator": evaluator, "candidates": candidates, "record": record}
    chosen = with_options(LabelRecipe, known, given)
    how = drawing.DrawingOptions(chosen, seed, shard, vision_tower, batch_size)
    lines = read_prompts(prompts)
    judged_by = load_evaluator(chosen.evaluator, GenEvalModels(detector, color_model, device))
    judged_by.check(lines)
    drawn_by = drawing.load(chosen.generator, device, dtype, out, dry_run)
    work = drawing.drawing_of(drawn_by, lines, LabelObserver(judged_by), how)
    if dry_run:
        return drawing.plan(work, how, prompts, out)
    folder = drawing.draw(work, how, out)
    if folder is None:
        return
    summary = summarize(folder)
    typer.echo(f"{summary.rows} labelled candidates are in {out}, {summary.correct:.1%} of them are right")
    for task, share in summary.tasks.items():
        typer.echo(f"{task}: {share.rows}, {share.correct:.1%}")
