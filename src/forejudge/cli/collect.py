"""What `forejudge label` and `forejudge caption` share: candidates drawn for somebody to look at, and kept."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from typer import Option

from forejudge.cli import options
from forejudge.cli.common import load_with_license_notice
from forejudge.cli.progress import spinner
from forejudge.cli.train import DryRun, print_cost_estimate, print_plan
from forejudge.errors import InvalidRequest
from forejudge.files import check_writable, prepare_folder

if TYPE_CHECKING:
    from forejudge.candidates.collect import CandidateCollector
    from forejudge.candidates.observers import Observer
    from forejudge.candidates.store import CandidateStore
    from forejudge.generators.base import Generator as LoadedGenerator
    from forejudge.prompts.prompt_file import PromptLine
    from forejudge.training.config import CollectionRecipe
    from forejudge.verifiers.inputs import VerifierInput


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
CandidatesPerPrompt = Annotated[
    int | None, Option(help="Candidates of each prompt (default: the recipe's; without one, label 20 and caption 1).")
]
Seed = Annotated[int, Option(help="The run's seed, from which each candidate's follows.")]
ShardOption = Annotated[str, Option(metavar="I/N", help="The I-th of N parts, for processes that share DIR.")]
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
class CollectOptions:
    """What is drawn, which part of it by this process, and how."""

    recipe: "CollectionRecipe"
    seed: int
    shard: str
    vision_tower: str | None
    batch_size: int

    def __post_init__(self) -> None:
        for name, value in (("candidates", self.recipe.candidates), ("batch-size", self.batch_size)):
            if value < 1:
                raise InvalidRequest(f"{name} = {value}: it must be at least 1")
        from forejudge.progress import Shard
        from forejudge.verifiers.inputs import build_verifier_input

        Shard.parse(self.shard)
        for name in self._input_names:
            build_verifier_input(name, self.vision_tower)

    @property
    def _input_names(self) -> list[str]:
        """What is to be recorded, but for "all", which only a generator can spell out."""
        record = self.recipe.record
        return list(dict.fromkeys(record.split(","))) if record not in (None, "none", "all") else []

    def verifier_inputs(self, generator: "LoadedGenerator") -> "list[VerifierInput]":
        """What is recorded. Raises InvalidRequest for a spelling that is none."""
        from forejudge.verifiers.inputs import build_verifier_input

        blocks = range(1, generator.architecture.num_blocks + 1) if self.recipe.record == "all" else ()
        names = [*self._input_names, *(f"hidden:{count}" for count in blocks)]
        return [build_verifier_input(name, self.vision_tower) for name in names]


def load(name: str, device: str | None, dtype: str | None, out: Path, dry_run: bool) -> "LoadedGenerator":
    """The generator, once it is known that results can be written; a dry run leaves nothing."""
    if dry_run:
        check_writable(out)
    else:
        prepare_folder(out)
    with spinner("loading"):
        from forejudge.device import AUTO

        return load_with_license_notice(name, device, dtype or AUTO)


def build_collector(
    generator: "LoadedGenerator", lines: "list[PromptLine]", observer: "Observer", options: CollectOptions
) -> "CandidateCollector":
    """All that there is to draw."""
    from forejudge.candidates.collect import CandidateCollector

    verifier_inputs = options.verifier_inputs(generator)
    return CandidateCollector(
        generator, lines, options.recipe.candidates, options.seed, observer, verifier_inputs, options.batch_size
    )


def plan(collector: "CandidateCollector", options: CollectOptions, prompts: Path, out: Path) -> None:
    """What would be drawn, and how much work that is."""
    from forejudge.candidates.store import CandidateStore
    from forejudge.progress import Shard
    from forejudge.training.estimate import estimate_collection

    with spinner("measuring"):
        work = estimate_collection(collector, CandidateStore(out), Shard.parse(options.shard))
    run_options = {"seed": options.seed, "shard": options.shard, "batch size": options.batch_size}
    print_plan(options.recipe, {**run_options, "dtype": collector.settings.dtype, "prompts": prompts, "out": out})
    print_cost_estimate(work, out, str(collector.generator.device))


def run_collector(collector: "CandidateCollector", options: CollectOptions, out: Path) -> "CandidateStore | None":
    """Draw this process's part, with progress; the folder if it is complete then."""
    from forejudge.candidates.store import CandidateStore
    from forejudge.cli.progress import StageProgress
    from forejudge.files import in_words
    from forejudge.progress import Shard

    folder, shard = CandidateStore(out), Shard.parse(options.shard)
    if collector.verifier_inputs:
        typer.echo(
            f"the states of all {collector.settings.rows} rows take {in_words(collector.recorded_bytes)}", err=True
        )
    try:
        with StageProgress() as progress:
            collector.run(folder, shard, progress.show)
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
    candidates: CandidatesPerPrompt = None,
    seed: Seed = 0,
    shard: ShardOption = "1/1",
    record: Record = None,
    vision_tower: VisionTower = None,
    device: options.Device = None,
    dtype: options.Dtype = None,
    batch_size: BatchSize = 8,
    dry_run: DryRun = False,
) -> None:
    """Draw a picture of each line, and say what it shows, which is not always what was asked for."""
    from forejudge.candidates.observers import CaptionObserver
    from forejudge.evaluators.loading import check_captioner, load_captioner
    from forejudge.prompts.prompt_file import read_prompts
    from forejudge.training.config import CaptionRecipe, with_options
    from forejudge.training.presets import load_preset

    preset = load_preset(recipe).caption if recipe else None
    overrides = {"generator": generator, "captioner": captioner, "candidates": candidates, "record": record}
    resolved_recipe = with_options(CaptionRecipe, preset, overrides)
    run_options = CollectOptions(resolved_recipe, seed, shard, vision_tower, batch_size)
    lines = read_prompts(prompts)
    check_captioner(resolved_recipe.captioner)
    loaded_generator = load(resolved_recipe.generator, device, dtype, out, dry_run)
    loaded_captioner = load_captioner(resolved_recipe.captioner, loaded_generator.device, loaded_generator.dtype)
    work = build_collector(loaded_generator, lines, CaptionObserver(loaded_captioner), run_options)
    if dry_run:
        return plan(work, run_options, prompts, out)
    folder = run_collector(work, run_options, out)
    if folder is not None:
        typer.echo(f"{folder.settings.rows} captioned candidates are in {out}")


# FOLDED: `forejudge label`: candidates drawn, judged and kept, for a verifier to be trained on.


def label(
    prompts: Prompts,
    out: Out,
    recipe: RecipeName = None,
    generator: Generator = None,
    evaluator: options.RecipeEvaluator = None,
    candidates: CandidatesPerPrompt = None,
    seed: Seed = 0,
    shard: ShardOption = "1/1",
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
    from forejudge.candidates.observers import LabelObserver, summarize
    from forejudge.evaluators.loading import GenEvalModels, load_evaluator
    from forejudge.prompts.prompt_file import read_prompts
    from forejudge.training.config import LabelRecipe, with_options
    from forejudge.training.presets import load_preset

    preset = load_preset(recipe).label if recipe else None
    overrides = {"generator": generator, "evaluator": evaluator, "candidates": candidates, "record": record}
    resolved_recipe = with_options(LabelRecipe, preset, overrides)
    run_options = CollectOptions(resolved_recipe, seed, shard, vision_tower, batch_size)
    lines = read_prompts(prompts)
    loaded_evaluator = load_evaluator(resolved_recipe.evaluator, GenEvalModels(detector, color_model, device))
    loaded_evaluator.check(lines)
    loaded_generator = load(resolved_recipe.generator, device, dtype, out, dry_run)
    work = build_collector(loaded_generator, lines, LabelObserver(loaded_evaluator), run_options)
    if dry_run:
        return plan(work, run_options, prompts, out)
    folder = run_collector(work, run_options, out)
    if folder is None:
        return
    summary = summarize(folder)
    typer.echo(f"{summary.rows} labelled candidates are in {out}, {summary.correct:.1%} of them are right")
    for task, task_summary in summary.tasks.items():
        typer.echo(f"{task}: {task_summary.rows}, {task_summary.correct:.1%}")
