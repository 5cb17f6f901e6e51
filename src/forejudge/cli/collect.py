"""`forejudge label` and `forejudge caption`: candidates of many prompts, labeled or described."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from typer import Option

from forejudge.cli import options
from forejudge.cli.common import echo, hold_output, load_with_license_notice
from forejudge.cli.progress import StageProgress, spinner
from forejudge.cli.train import DryRun, print_cost_estimate, print_plan
from forejudge.files import check_writable, in_words
from forejudge.options import MAX_SEED, check_count
from forejudge.progress import Shard

if TYPE_CHECKING:
    from forejudge.candidates.collect import CandidateCollector
    from forejudge.candidates.observers import Observer
    from forejudge.candidates.store import CandidateStore
    from forejudge.generators.base import Generator as LoadedGenerator
    from forejudge.prompts.prompt_file import PromptLine
    from forejudge.training.config import CollectionRecipe
    from forejudge.verifiers.inputs import InputWeights, VerifierInput


RecipeName = Annotated[
    str | None,
    Option("--recipe", metavar="NAME", help="Preset such as sana-sprint-1.6b; options override what it says."),
]
Generator = Annotated[str | None, Option(help="Generator: a name from `forejudge models`, a folder or a hub id.")]
Prompts = Annotated[
    Path, Option(metavar="FILE", help="Prompts: a text file, one per line, or JSON lines with metadata.")
]
Out = Annotated[Path, Option(metavar="DIR", help="Folder to write to; an interrupted run continues in it.")]
CandidatesPerPrompt = Annotated[
    int | None, Option(help="Candidates per prompt (default: the recipe's, else 20 to label and 1 to caption).")
]
Seed = Annotated[int, Option(help="Random seed that all candidate seeds derive from.")]
Split = Annotated[
    options.OpenSplit,
    Option(help="What the candidates are for: those of two splits never have the same seed."),
]
ShardOption = Annotated[str, Option(metavar="I/N", help="Part of the work for this process; all parts share DIR.")]
Record = Annotated[
    str | None,
    Option(
        metavar="LIST",
        help="Verifier inputs to record, such as hidden:6,latent; all for every transformer block, or none (default: "
        "the recipe's, else none).",
    ),
]
VisionTower = Annotated[str | None, Option(help="CLIP for --record clip or preview: a folder or a hub id.")]
TinyDecoder = Annotated[str | None, Option(help="Tiny decoder for --record preview: a folder or a hub id.")]
BatchSize = Annotated[int, Option(help="Candidates of a prompt processed at once.")]
CaptionerName = Annotated[
    str | None,
    Option(
        help="Captioner: miniature, or an image-text-to-text model by folder or hub id, such as google/gemma-3-4b-it."
    ),
]


def label(
    prompts: Prompts,
    out: Out,
    recipe: RecipeName = None,
    generator: Generator = None,
    evaluator: options.RecipeEvaluator = None,
    candidates: CandidatesPerPrompt = None,
    seed: Seed = 0,
    split: Split = "training",
    shard: ShardOption = "1/1",
    record: Record = None,
    vision_tower: VisionTower = None,
    tiny_decoder: TinyDecoder = None,
    device: options.Device = None,
    dtype: options.Dtype = None,
    batch_size: BatchSize = 8,
    detector: options.Detector = None,
    color_model: options.ColorModel = None,
    dry_run: DryRun = False,
) -> None:
    """Generate candidates of many prompts and label each image correct or wrong, to train a verifier on."""
    from forejudge.candidates.observers import LabelObserver, summarize
    from forejudge.evaluators.loading import GenEvalModels, load_evaluator
    from forejudge.prompts.prompt_file import read_prompts
    from forejudge.training.config import LabelRecipe, with_options
    from forejudge.training.presets import load_preset
    from forejudge.verifiers.inputs import InputWeights

    preset = load_preset(recipe).label if recipe else None
    overrides = {"generator": generator, "evaluator": evaluator, "candidates": candidates, "record": record}
    resolved_recipe = with_options(LabelRecipe, preset, overrides)
    weights = InputWeights(vision_tower, tiny_decoder)
    run_options = CollectOptions(resolved_recipe, seed, split, Shard.parse(shard), weights, batch_size)
    lines = read_prompts(prompts)
    loaded_evaluator = load_evaluator(resolved_recipe.evaluator, GenEvalModels(detector, color_model, device))
    loaded_evaluator.check(lines)
    loaded_generator = _load_generator(resolved_recipe.generator, lines, device, dtype, out, run_options.shard, dry_run)
    collector = _build_collector(loaded_generator, lines, LabelObserver(loaded_evaluator), run_options)
    if dry_run:
        return _print_estimate(collector, run_options, prompts, out)
    store = _run(collector, run_options, out)
    if store is None:
        return
    summary = summarize(store)
    echo(f"{summary.rows} labeled candidates are in {out}, {summary.correct:.1%} of them are correct")
    for task, task_summary in summary.tasks.items():
        echo(f"{task}: {task_summary.rows}, {task_summary.correct:.1%}")


def caption(
    prompts: Prompts,
    out: Out,
    recipe: RecipeName = None,
    generator: Generator = None,
    captioner: CaptionerName = None,
    candidates: CandidatesPerPrompt = None,
    seed: Seed = 0,
    split: Split = "training",
    shard: ShardOption = "1/1",
    record: Record = None,
    vision_tower: VisionTower = None,
    tiny_decoder: TinyDecoder = None,
    device: options.Device = None,
    dtype: options.Dtype = None,
    batch_size: BatchSize = 8,
    dry_run: DryRun = False,
) -> None:
    """Generate candidates of many prompts and describe what each image shows, to align a connector on."""
    from forejudge.candidates.observers import CaptionObserver
    from forejudge.evaluators.loading import check_captioner, load_captioner
    from forejudge.prompts.prompt_file import read_prompts
    from forejudge.training.config import CaptionRecipe, with_options
    from forejudge.training.presets import load_preset
    from forejudge.verifiers.inputs import InputWeights

    preset = load_preset(recipe).caption if recipe else None
    overrides = {"generator": generator, "captioner": captioner, "candidates": candidates, "record": record}
    resolved_recipe = with_options(CaptionRecipe, preset, overrides)
    weights = InputWeights(vision_tower, tiny_decoder)
    run_options = CollectOptions(resolved_recipe, seed, split, Shard.parse(shard), weights, batch_size)
    lines = read_prompts(prompts)
    check_captioner(resolved_recipe.captioner)
    loaded_generator = _load_generator(resolved_recipe.generator, lines, device, dtype, out, run_options.shard, dry_run)
    loaded_captioner = load_captioner(resolved_recipe.captioner, loaded_generator.device, loaded_generator.dtype)
    collector = _build_collector(loaded_generator, lines, CaptionObserver(loaded_captioner), run_options)
    if dry_run:
        return _print_estimate(collector, run_options, prompts, out)
    store = _run(collector, run_options, out)
    if store is not None:
        echo(f"{store.settings.rows} captioned candidates are in {out}")


@dataclass(frozen=True)
class CollectOptions:
    """The recipe of a collection, and this process's part of it. Raises InvalidRequest for values out of range."""

    recipe: "CollectionRecipe"
    seed: int
    split: options.OpenSplit
    shard: Shard
    weights: "InputWeights"
    batch_size: int

    def __post_init__(self) -> None:
        check_count("seed", self.seed, 0, MAX_SEED)
        check_count("batch-size", self.batch_size)
        from forejudge.verifiers.inputs import build_verifier_input

        for name in self._input_names:
            build_verifier_input(name, self.weights)

    @property
    def _input_names(self) -> list[str]:
        """Verifier inputs to record, except "all", which depends on the generator."""
        record = self.recipe.record
        return list(dict.fromkeys(record.split(","))) if record not in (None, "none", "all") else []

    def verifier_inputs(self, generator: "LoadedGenerator") -> "list[VerifierInput]":
        """Build the verifier inputs to record. Raises InvalidRequest for an unknown one."""
        from forejudge.verifiers.inputs import build_verifier_input

        blocks = range(1, generator.architecture.num_blocks + 1) if self.recipe.record == "all" else ()
        names = [*self._input_names, *(f"hidden:{count}" for count in blocks)]
        return [build_verifier_input(name, self.weights) for name in names]


def _load_generator(
    name: str,
    lines: "list[PromptLine]",
    device: str | None,
    dtype: str | None,
    out: Path,
    shard: Shard,
    dry_run: bool,
) -> "LoadedGenerator":
    """Load the generator once `out` can be written and it can serve all prompts; a dry run leaves nothing there."""
    if dry_run:
        check_writable(out)
    else:
        hold_output(out, shard)
    with spinner("loading"):
        from forejudge.device import AUTO

        return load_with_license_notice(name, device, dtype or AUTO, lines)


def _build_collector(
    generator: "LoadedGenerator", lines: "list[PromptLine]", observer: "Observer", run_options: CollectOptions
) -> "CandidateCollector":
    from forejudge.candidates.collect import CandidateCollector

    inputs = run_options.verifier_inputs(generator)
    candidates, seed, batch_size = run_options.recipe.candidates, run_options.seed, run_options.batch_size
    split = run_options.split
    return CandidateCollector(generator, lines, candidates, seed, observer, inputs, split, batch_size)


def _print_estimate(collector: "CandidateCollector", run_options: CollectOptions, prompts: Path, out: Path) -> None:
    from forejudge.candidates.store import CandidateStore
    from forejudge.training.estimate import estimate_collection

    with spinner("measuring"):
        estimate = estimate_collection(collector, CandidateStore(out), run_options.shard)
    settings = {
        "seed": run_options.seed,
        "split": run_options.split,
        "shard": run_options.shard,
        "batch size": run_options.batch_size,
    }
    print_plan(run_options.recipe, {**settings, "dtype": collector.settings.dtype, "prompts": prompts, "out": out})
    print_cost_estimate(estimate, out, str(collector.generator.device))


def _run(collector: "CandidateCollector", run_options: CollectOptions, out: Path) -> "CandidateStore | None":
    """Collect this process's shard with progress, and return the store if it is complete then."""
    from forejudge.candidates.store import CandidateStore

    store, shard = CandidateStore(out), run_options.shard
    if collector.verifier_inputs:
        size = in_words(collector.recorded_bytes)
        echo(f"the states of all {collector.settings.rows} rows take {size}", err=True)
    try:
        with StageProgress() as progress:
            collector.run(store, shard, progress.show)
    except KeyboardInterrupt:
        raise KeyboardInterrupt("run the same command again to continue") from None
    if not (missing := len(store.missing)):
        return store
    echo(f"shard {shard} is done; of all {store.blocks} row blocks {missing} are left to the other shards")
    return None
