"""`forejudge eval`: verifiers on a benchmark, at equal N and at equal cost."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Annotated

import torch
import typer
from typer import Option

from forejudge.candidates.collect import EvaluationCollector
from forejudge.cli import options
from forejudge.cli.common import print_licenses
from forejudge.cli.options import parse_ints
from forejudge.cli.progress import StageProgress, spinner
from forejudge.cli.tables import print_figures, show_warnings
from forejudge.device import resolve_device, resolve_dtype
from forejudge.errors import InvalidRequest
from forejudge.evaluation.equal_cost import BUDGET_NS
from forejudge.evaluation.figures import FIGURES_FILE, VerifierWeights
from forejudge.evaluation.suite import FinishedSuite, Suite, with_controls
from forejudge.evaluators.base import Evaluator
from forejudge.evaluators.benchmarks import Benchmark, load_benchmark, second_evaluators_of
from forejudge.evaluators.loading import GENEVAL, GenEvalModels, load_evaluator
from forejudge.files import prepare_folder, write_json
from forejudge.generators import load_generator
from forejudge.generators.base import Generator, SamplingParams
from forejudge.generators.diffusers_pipeline import BlackBox
from forejudge.progress import ProgressCallback, Shard
from forejudge.result import provenance
from forejudge.verifiers import load_verifier
from forejudge.verifiers.base import Verifier

# FOLDED: Who judges the pictures of `forejudge eval`: the benchmark with its evaluator, and those beside it.


EvaluatorOptions = tuple[str | None, str | None, str | None]
"""--evaluator (None: the benchmark's own), --detector, --color-model."""


def load_evaluators(
    benchmark: str, evaluator_options: EvaluatorOptions, second_evaluators: Sequence[str], device: torch.device
) -> tuple[Benchmark, dict[str, Evaluator]]:
    """The benchmark, and second evaluators by name.

    Where `geneval` is among the evaluators, detector and color model are for it alone. Raises InvalidRequest and
    CheckpointError, see `load_benchmark`, `load_evaluator` and `second_evaluators_of`.
    """
    first, detector, color_model = evaluator_options

    def load(name: str) -> Evaluator:
        if name != GENEVAL and GENEVAL in (first, *second_evaluators):
            return load_evaluator(name, GenEvalModels(device=str(device)))
        return load_evaluator(name, GenEvalModels(detector, color_model, str(device)))

    loaded_benchmark = load_benchmark(benchmark, None if first is None else load(first))
    return loaded_benchmark, second_evaluators_of(loaded_benchmark, [load(name) for name in second_evaluators])


# FOLDED: What was asked of `forejudge eval`, and how it is carried out.


@dataclass(frozen=True)
class EvaluateOptions:
    """The options, read; see the command for what they mean."""

    generator: str
    verifiers: tuple[str, ...]
    benchmark: str
    evaluator_options: EvaluatorOptions
    ns: tuple[int, ...]
    budgets_ms: tuple[int, ...] | None
    images_per_prompt: int
    seeds: int
    steps: tuple[int, ...]
    baselines: tuple[str, ...]
    combined: tuple[str, ...]
    controls: bool
    second_evaluators: tuple[str, ...] = ()

    def run(self, out: Path, shard: str, figures: Path | None, device: str | None, dtype: str) -> None:
        """Draw what is missing; once nothing is, write and show the figures."""
        part, combined = Shard.parse(shard), self.combinations
        prepare_folder(out)
        with StageProgress() as progress:
            torch_device = resolve_device(device)
            suite = self._suite(out, torch_device, resolve_dtype(dtype, torch_device), progress.show)
            try:
                suite.run(part)
            except KeyboardInterrupt:
                raise KeyboardInterrupt("the same command goes on with what is missing") from None
        if missing := suite.missing:
            typer.echo(f"shard {part} is done; {missing} prompts are left to the other shards")
            return
        finished = FinishedSuite(out, list(suite.baselines), provenance(suite.main.generator.device))
        results = finished.figures(self.ns, self.budgets_ms, combined)
        output_paths = [out / FIGURES_FILE, *([figures] if figures else [])]  # the first is what a report reads
        for path in output_paths:
            write_json(path, results)
        print_figures(results)
        typer.echo(f"written to {' and '.join(map(str, output_paths))}")

    @cached_property
    def names(self) -> dict[str, str]:
        """The verifiers' names in tables -> how they were given. Raises InvalidRequest for two of one name."""
        verifiers_by_name = {_name(name_or_path): name_or_path for name_or_path in self.verifiers}
        if len(verifiers_by_name) < len(self.verifiers):
            raise InvalidRequest(f"two of the verifiers {', '.join(self.verifiers)} have one name: rename a folder")
        return verifiers_by_name

    @property
    def combinations(self) -> list[VerifierWeights]:
        """Raises InvalidRequest for a verifier that is not there, or a weight that is no number."""
        return [self._combination(text) for text in self.combined]

    def _combination(self, text: str) -> VerifierWeights:
        weights: dict[str, float] = {}
        for part in text.split(","):
            name, _, weight = part.partition("=")
            try:
                weights[name] = float(weight or 1)
            except ValueError:
                raise InvalidRequest(f"--combine {text!r}: {weight!r} is no weight") from None
        if len(weights) < 2 or not weights.keys() <= self.names.keys():
            raise InvalidRequest(f"--combine {text!r}: expected two or more of {', '.join(self.names)}")
        return weights

    def _suite(self, out: Path, device: torch.device, dtype: torch.dtype, report: ProgressCallback) -> Suite:
        with spinner("loading"):
            benchmark, extra_evaluators = load_evaluators(
                self.benchmark, self.evaluator_options, self.second_evaluators, device
            )
            generator = load_generator(self.generator, device, dtype)
            timed_verifiers = {
                name: load_verifier(name_or_path, device, dtype) for name, name_or_path in self.names.items()
            }
            for verifier in timed_verifiers.values():
                show_warnings(verifier.check(generator))
            verifiers = with_controls(timed_verifiers) if self.controls else timed_verifiers
            plain = self._baselines(generator, benchmark, device, dtype)
        print_licenses([*generator.sources, *(verifier.source for verifier in timed_verifiers.values())])
        max_candidates = max(*self.ns, max(BUDGET_NS) if self.budgets_ms is None else 1)
        drawn = self._evaluation(generator, verifiers, benchmark, max_candidates, generator.defaults)
        main = replace(drawn, second_evaluators=extra_evaluators)
        return Suite(out, main, timed_verifiers, plain, report)

    def _baselines(
        self, generator: Generator, benchmark: Benchmark, device: torch.device, dtype: torch.dtype
    ) -> dict[str, EvaluationCollector]:
        """One picture each: by the generator itself with one and more steps, and by other pipelines."""
        drawn = {f"{count} step{'s' * (count > 1)}": (generator, count) for count in (1, *self.steps)}
        for name in self.baselines:
            other = BlackBox.from_pretrained(name, device, dtype)
            drawn |= {f"{Path(name).name}, {count} steps": (other, count) for count in self.steps or (1,)}
        return {
            name: self._evaluation(source, {}, benchmark, 1, source.defaults.model_copy(update={"steps": count}))
            for name, (source, count) in drawn.items()
        }

    def _evaluation(
        self,
        generator: Generator,
        verifiers: dict[str, Verifier],
        benchmark: Benchmark,
        candidates: int,
        sampling: SamplingParams,
    ) -> EvaluationCollector:
        return EvaluationCollector(
            generator, verifiers, benchmark, candidates, self.images_per_prompt, self.seeds, sampling
        )


def _name(name_or_path: str) -> str:
    """A folder's last part, or what scores pictures; hub ids and known models as they are."""
    if Path(name_or_path).is_dir():
        return Path(name_or_path).absolute().name
    return "clipscore" if name_or_path.startswith("clipscore:") else name_or_path


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
    evaluator: options.OptionalEvaluator = None,
    second_evaluator: options.SecondEvaluators = None,
    detector: options.Detector = None,
    color_model: options.ColorModel = None,
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

    evaluate_options = EvaluateOptions(
        generator=generator,
        verifiers=tuple(verifier or [generator]),
        benchmark=benchmark,
        evaluator_options=(evaluator, detector, color_model),
        ns=tuple(parse_ints("--n", n)),
        budgets_ms=tuple(parse_ints("--budget-ms", budget_ms)) if budget_ms else None,
        images_per_prompt=images_per_prompt,
        seeds=seeds,
        steps=tuple(parse_ints("--steps", steps)) if steps else (),
        baselines=tuple(baseline or ()),
        combined=tuple(combine or ()),
        controls=controls,
        second_evaluators=tuple(second_evaluator or ()),
    )
    evaluate_options.run(out, shard, figures, device, dtype)


@group.command()
def merge(
    out: Annotated[Path, typer.Argument(help="The folder of one part.")],
    parts: Annotated[list[Path], typer.Argument(help="The folders of the others, drawn with other --shard.")],
) -> None:
    """Bring the parts of an evaluation that were drawn on several machines together in the first folder."""
    from forejudge.candidates.store import EvaluationStore
    from forejudge.evaluation.suite import merge_evaluation

    for part in parts:
        typer.echo(f"{merge_evaluation(out, part)} prompts taken over from {part}")
    num_missing = len(EvaluationStore(out).missing)
    typer.echo(
        f"{num_missing} prompts are missing" if num_missing else "complete: the same eval with --out writes the figures"
    )
