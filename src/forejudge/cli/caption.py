"""`forejudge caption`: candidates drawn, described and kept, for a connector to be aligned on."""

from typing import Annotated

import typer
from typer import Option

from forejudge.cli import drawing, options


def caption(
    generator: drawing.Generator,
    prompts: drawing.Prompts,
    captioner: Annotated[
        str,
        Option(help="miniature, or an image-text-to-text model: a folder or a hub id, such as google/gemma-3-4b-it."),
    ],
    out: drawing.Out,
    candidates: drawing.CandidatesEach = 1,
    seed: drawing.Seed = 0,
    shard: drawing.ShardOf = "1/1",
    record: drawing.Record = None,
    vision_tower: drawing.VisionTower = None,
    device: options.Device = None,
    dtype: options.Dtype = None,
    batch_size: drawing.BatchSize = 8,
) -> None:
    """Draw a picture of each line, and say what it shows, which is not always what was asked for."""
    how = drawing.DrawingOptions(candidates, seed, shard, record, vision_tower, batch_size)
    from forejudge.evaluation.prompts_file import read_prompts
    from forejudge.training.captioners import load_captioner
    from forejudge.training.captions import CaptionObserver

    lines, drawn_by = read_prompts(prompts), drawing.load(generator, device, dtype, out)
    told_by = load_captioner(captioner, drawn_by.device, drawn_by.dtype)
    folder = drawing.draw(drawn_by, lines, CaptionObserver(told_by), how, out)
    if folder is not None:
        typer.echo(f"{folder.settings.rows} captioned candidates are in {out}")
