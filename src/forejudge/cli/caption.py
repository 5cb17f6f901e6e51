"""`forejudge caption`: candidates drawn, described and kept, for a connector to be aligned on."""

from typing import Annotated

import typer
from typer import Option

from forejudge.cli import drawing, options
from forejudge.cli.dry_run import DryRun


def caption(
    prompts: drawing.Prompts,
    out: drawing.Out,
    recipe: drawing.RecipeName = None,
    generator: drawing.Generator = None,
    captioner: Annotated[
        str | None,
        Option(help="miniature, or an image-text-to-text model: a folder or a hub id, such as google/gemma-3-4b-it."),
    ] = None,
    candidates: drawing.CandidatesEach = None,
    seed: drawing.Seed = 0,
    shard: drawing.ShardOf = "1/1",
    record: drawing.Record = None,
    vision_tower: drawing.VisionTower = None,
    device: options.Device = None,
    dtype: options.Dtype = None,
    batch_size: drawing.BatchSize = 8,
    dry_run: DryRun = False,
) -> None:
    """Draw a picture of each line, and say what it shows, which is not always what was asked for."""
    from forejudge.evaluation.prompts_file import read_prompts
    from forejudge.training.captioners import check_captioner, load_captioner
    from forejudge.training.captions import CaptionObserver
    from forejudge.training.known_recipes import known_recipe
    from forejudge.training.recipe import CaptionRecipe
    from forejudge.training.recipe_changes import with_options

    known = known_recipe(recipe).caption if recipe else None
    given = {"generator": generator, "captioner": captioner, "candidates": candidates, "record": record}
    chosen = with_options(CaptionRecipe, known, given)
    how = drawing.DrawingOptions(chosen, seed, shard, vision_tower, batch_size)
    lines = read_prompts(prompts)
    check_captioner(chosen.captioner)
    drawn_by = drawing.load(chosen.generator, device, dtype, out, dry_run)
    told_by = load_captioner(chosen.captioner, drawn_by.device, drawn_by.dtype)
    work = drawing.drawing_of(drawn_by, lines, CaptionObserver(told_by), how)
    if dry_run:
        return drawing.plan(work, how, prompts, out)
    folder = drawing.draw(work, how, out)
    if folder is not None:
        typer.echo(f"{folder.settings.rows} captioned candidates are in {out}")
