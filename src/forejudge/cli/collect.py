"""What `forejudge label` and `forejudge caption` share: candidates drawn for somebody to look at, and kept."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from typer import Option

from forejudge.cli import options
from forejudge.cli.common import load_told
from forejudge.cli.progress import waiting
from forejudge.cli.train import DryRun, show_plan, show_work
from forejudge.errors import InvalidRequest
from forejudge.files import check_writable, prepare_folder

if TYPE_CHECKING:
    from forejudge.candidates.collect import CandidateDrawing, Observer
    from forejudge.candidates.store import RowFolder
    from forejudge.generators.base import Generator as LoadedGenerator
    from forejudge.prompts.prompt_file import PromptLine
    from forejudge.training.config import DrawingRecipe
    from forejudge.verifiers.inputs import Reading


RecipeName = Annotated[
    str | None,
    Option(
        "--recipe",
        metavar="NAME",
        help="A known recipe, such as sana-sprint-1.6b: what it says holds wherever no option says otherwise.",
    ),
]
Generator = Annotated[str | None, Option(help="A name that `forejudge models` lists, a folder or a hub id.")]
Prompts = Annotated[Path, Option(metavar="FILE", help="A text file with a prompt a line, or .jsonl with metadata.")]
Out = Annotated[Path, Option(metavar="DIR", help="The folder to write to. A run that was stopped goes on there.")]
CandidatesEach = Annotated[
    int | None, Option(help="Candidates of each prompt (default: the recipe's; without one, label 20 and caption 1).")
]
Seed = Annotated[int, Option(help="The run's seed, from which each candidate's follows.")]
ShardOf = Annotated[str, Option(metavar="I/N", help="The I-th of N parts, for processes that share DIR.")]
Record = Annotated[
    str | None,
    Option(
        metavar="LIST",
        help="States to keep, such as hidden:6,latent, all for every block, or none (default: the recipe's).",
    ),
]
VisionTower = Annotated[str | None, Option(help="For --record clip, the CLIP to see with: a folder or a hub id.")]
BatchSize = Annotated[int, Option(help="Candidates of one prompt drawn at once.")]


@dataclass(frozen=True)
class DrawingOptions:
    """What is drawn, which part of it by this process, and how."""

    recipe: "DrawingRecipe"
    seed: int
    shard: str
    vision_tower: str | None
    batch_size: int

    def __post_init__(self) -> None:
        for name, value in (("candidates", self.recipe.candidates), ("batch-size", self.batch_size)):
            if value < 1:
                raise InvalidRequest(f"{name} = {value}: it must be at least 1")
        from forejudge.progress import Shard
        from forejudge.verifiers.inputs import reading_named

        Shard.parse(self.shard)
        for name in self._names:
            reading_named(name, self.vision_tower)

    @property
    def _names(self) -> list[str]:
        """What is to be recorded, but for "all", which only a generator can spell out."""
        record = self.recipe.record
        return list(dict.fromkeys(record.split(","))) if record not in (None, "none", "all") else []

    def readings(self, generator: "LoadedGenerator") -> "list[Reading]":
        """What is recorded. Raises InvalidRequest for a spelling that is none."""
        from forejudge.verifiers.inputs import reading_named

        blocks = range(1, generator.architecture.num_blocks + 1) if self.recipe.record == "all" else ()
        names = [*self._names, *(f"hidden:{count}" for count in blocks)]
        return [reading_named(name, self.vision_tower) for name in names]


def load(name: str, device: str | None, dtype: str | None, out: Path, dry_run: bool) -> "LoadedGenerator":
    """The generator, once it is known that results can be written; a dry run leaves nothing."""
    if dry_run:
        check_writable(out)
    else:
        prepare_folder(out)
    with waiting("loading"):
        from forejudge.device import AUTO

        return load_told(name, device, dtype or AUTO)


def drawing_of(
    generator: "LoadedGenerator", lines: "list[PromptLine]", observer: "Observer", options: DrawingOptions
) -> "CandidateDrawing":
    """All that there is to draw."""
    from forejudge.candidates.collect import CandidateDrawing

    readings = options.readings(generator)
    return CandidateDrawing(
        generator, lines, options.recipe.candidates, options.seed, observer, readings, options.batch_size
    )


def plan(drawing: "CandidateDrawing", options: DrawingOptions, prompts: Path, out: Path) -> None:
    """What would be drawn, and how much work that is."""
    from forejudge.candidates.store import RowFolder
    from forejudge.progress import Shard
    from forejudge.training.estimate import drawing_work

    with waiting("measuring"):
        work = drawing_work(drawing, RowFolder(out), Shard.parse(options.shard))
    how = {"seed": options.seed, "shard": options.shard, "batch size": options.batch_size}
    show_plan(options.recipe, {**how, "dtype": drawing.settings.dtype, "prompts": prompts, "out": out})
    show_work(work, out, str(drawing.generator.device))


def draw(drawing: "CandidateDrawing", options: DrawingOptions, out: Path) -> "RowFolder | None":
    """Draw this process's part, with progress; the folder if it is complete then."""
    from forejudge.candidates.store import RowFolder
    from forejudge.cli.progress import StageProgress
    from forejudge.files import in_words
    from forejudge.progress import Shard

    folder, shard = RowFolder(out), Shard.parse(options.shard)
    if drawing.readings:
        typer.echo(f"the states of all {drawing.settings.rows} rows take {in_words(drawing.recorded_bytes)}", err=True)
    try:
        with StageProgress() as progress:
            drawing.run(folder, shard, progress.show)
    except KeyboardInterrupt:
        raise KeyboardInterrupt("the same command goes on with what is missing") from None
    if not (missing := len(folder.missing)):
        return folder
    blocks = folder.settings.blocks
    typer.echo(f"shard {shard} is done; of all {blocks} blocks {missing} are left to the other shards")
    return None


# FOLDED: `forejudge caption`: candidates drawn, described and kept, for a connector to be aligned on.


def caption(
    prompts: Prompts,
    out: Out,
    recipe: RecipeName = None,
    generator: Generator = None,
    captioner: Annotated[
        str | None,
        Option(help="miniature, or an image-text-to-text model: a folder or a hub id, such as google/gemma-3-4b-it."),
    ] = None,
    candidates: CandidatesEach = None,
    seed: Seed = 0,
    shard: ShardOf = "1/1",
    record: Record = None,
    vision_tower: VisionTower = None,
    device: options.Device = None,
    dtype: options.Dtype = None,
    batch_size: BatchSize = 8,
    dry_run: DryRun = False,
) -> None:
    """Draw a picture of each line, and say what it shows, which is not always what was asked for."""
    from forejudge.candidates.collect import CaptionObserver
    from forejudge.evaluators.image_text_to_text import check_captioner, load_captioner
    from forejudge.prompts.prompt_file import read_prompts
    from forejudge.training.config import CaptionRecipe, with_options
    from forejudge.training.presets import known_recipe

    known = known_recipe(recipe).caption if recipe else None
    given = {"generator": generator, "captioner": captioner, "candidates": candidates, "record": record}
    chosen = with_options(CaptionRecipe, known, given)
    how = DrawingOptions(chosen, seed, shard, vision_tower, batch_size)
    lines = read_prompts(prompts)
    check_captioner(chosen.captioner)
    drawn_by = load(chosen.generator, device, dtype, out, dry_run)
    told_by = load_captioner(chosen.captioner, drawn_by.device, drawn_by.dtype)
    work = drawing_of(drawn_by, lines, CaptionObserver(told_by), how)
    if dry_run:
        return plan(work, how, prompts, out)
    folder = draw(work, how, out)
    if folder is not None:
        typer.echo(f"{folder.settings.rows} captioned candidates are in {out}")


# FOLDED: `forejudge label`: candidates drawn, judged and kept, for a verifier to be trained on.


def label(
    prompts: Prompts,
    out: Out,
    recipe: RecipeName = None,
    generator: Generator = None,
    evaluator: options.EvaluatorOfRecipe = None,
    candidates: CandidatesEach = None,
    seed: Seed = 0,
    shard: ShardOf = "1/1",
    record: Record = None,
    vision_tower: VisionTower = None,
    device: options.Device = None,
    dtype: options.Dtype = None,
    batch_size: BatchSize = 8,
    detector: options.Detector = None,
    color_model: options.ColorModel = None,
    dry_run: DryRun = False,
) -> None:
    """Draw all candidates of many prompts, and say of each picture whether it is right."""
    from forejudge.candidates.collect import LabelObserver, summarize
    from forejudge.evaluators.base import GenEvalModels, load_evaluator
    from forejudge.prompts.prompt_file import read_prompts
    from forejudge.training.config import LabelRecipe, with_options
    from forejudge.training.presets import known_recipe

    known = known_recipe(recipe).label if recipe else None
    given = {"generator": generator, "evaluator": evaluator, "candidates": candidates, "record": record}
    chosen = with_options(LabelRecipe, known, given)
    how = DrawingOptions(chosen, seed, shard, vision_tower, batch_size)
    lines = read_prompts(prompts)
    judged_by = load_evaluator(chosen.evaluator, GenEvalModels(detector, color_model, device))
    judged_by.check(lines)
    drawn_by = load(chosen.generator, device, dtype, out, dry_run)
    work = drawing_of(drawn_by, lines, LabelObserver(judged_by), how)
    if dry_run:
        return plan(work, how, prompts, out)
    folder = draw(work, how, out)
    if folder is None:
        return
    summary = summarize(folder)
    typer.echo(f"{summary.rows} labelled candidates are in {out}, {summary.correct:.1%} of them are right")
    for task, share in summary.tasks.items():
        typer.echo(f"{task}: {share.rows}, {share.correct:.1%}")
