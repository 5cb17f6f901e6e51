"""`forejudge eval`: verifiers on a benchmark, at equal N and at equal cost."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Annotated

import torch
import typer
from typer import Option

from forejudge.candidates.collect import Evaluation
from forejudge.cli import options
from forejudge.cli.common import tell_licences
from forejudge.cli.options import whole_numbers
from forejudge.cli.progress import StageProgress, waiting
from forejudge.cli.tables import print_figures, show_warnings
from forejudge.device import resolve_device, resolve_dtype
from forejudge.errors import InvalidRequest
from forejudge.evaluation.equal_cost import BUDGET_NS
from forejudge.evaluation.figures import FIGURES_FILE, Weights
from forejudge.evaluation.suite import FinishedSuite, Suite, with_controls
from forejudge.evaluators.base import GENEVAL, Evaluator, GenEvalModels, load_evaluator
from forejudge.evaluators.benchmarks import Benchmark, load_benchmark, second_evaluators_of
from forejudge.files import prepare_folder, write_json
from forejudge.generators import load_generator
from forejudge.generators.base import Generator, Sampling
from forejudge.generators.diffusers_pipeline import BlackBox
from forejudge.progress import Report, Shard
from forejudge.result import provenance
from forejudge.verifiers import load_verifier
from forejudge.verifiers.base import Verifier

# FOLDED: Who judges the pictures of `forejudge eval`: the benchmark with its evaluator, and those beside it.


Judge = tuple[str | None, str | None, str | None]
"""--evaluator (None: the benchmark's own), --detector, --color-model."""


def load_judges(
    benchmark: str, judge: Judge, second_evaluators: Sequence[str], device: torch.device
) -> tuple[Benchmark, dict[str, Evaluator]]:
    """The benchmark, and second evaluators by name.

    Where `geneval` is among the evaluators, detector and color model are for it alone. Raises InvalidRequest and
    CheckpointError, see `load_benchmark`, `load_evaluator` and `second_evaluators_of`.
    """
    first, detector, color_model = judge

    def load(name: str) -> Evaluator:
        if name != GENEVAL and GENEVAL in (first, *second_evaluators):
            return load_evaluator(name, GenEvalModels(device=str(device)))
        return load_evaluator(name, GenEvalModels(detector, color_model, str(device)))

    judged = load_benchmark(benchmark, None if first is None else load(first))
    return judged, second_evaluators_of(judged, [load(name) for name in second_evaluators])


# FOLDED: What was asked of `forejudge eval`, and how it is carried out.


@dataclass(frozen=True)
class Asked:
    """The options, read; see the command for what they mean."""

    generator: str
    verifiers: tuple[str, ...]
    benchmark: str
    judge: Judge
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
            where = resolve_device(device)
            suite = self._suite(out, where, resolve_dtype(dtype, where), progress.show)
            try:
                suite.run(part)
            except KeyboardInterrupt:
                raise KeyboardInterrupt("the same command goes on with what is missing") from None
        if missing := suite.missing:
            typer.echo(f"shard {part} is done; {missing} prompts are left to the other shards")
            return
        finished = FinishedSuite(out, list(suite.plain), provenance(suite.main.generator.device))
        found = finished.figures(self.ns, self.budgets_ms, combined)
        written = [out / FIGURES_FILE, *([figures] if figures else [])]  # the first is what a report reads
        for path in written:
            write_json(path, found)
        print_figures(found)
        typer.echo(f"written to {' and '.join(map(str, written))}")

    @cached_property
    def names(self) -> dict[str, str]:
        """The verifiers' names in tables -> how they were given. Raises InvalidRequest for two of one name."""
        named = {_name(given): given for given in self.verifiers}
        if len(named) < len(self.verifiers):
            raise InvalidRequest(f"two of the verifiers {', '.join(self.verifiers)} have one name: rename a folder")
        return named

    @property
    def combinations(self) -> list[Weights]:
        """Raises InvalidRequest for a verifier that is not there, or a weight that is no number."""
        return [self._combination(text) for text in self.combined]

    def _combination(self, text: str) -> Weights:
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

    def _suite(self, out: Path, device: torch.device, dtype: torch.dtype, report: Report) -> Suite:
        with waiting("loading"):
            benchmark, also = load_judges(self.benchmark, self.judge, self.second_evaluators, device)
            generator = load_generator(self.generator, device, dtype)
            compared = {name: load_verifier(given, device, dtype) for name, given in self.names.items()}
            for verifier in compared.values():
                show_warnings(verifier.check(generator))
            verifiers = with_controls(compared) if self.controls else compared
            plain = self._plain(generator, benchmark, device, dtype)
        tell_licences([*generator.sources, *(verifier.source for verifier in compared.values())])
        most = max(*self.ns, max(BUDGET_NS) if self.budgets_ms is None else 1)
        drawn = self._evaluation(generator, verifiers, benchmark, most, generator.defaults)
        main = replace(drawn, second_evaluators=also)
        return Suite(out, main, compared, plain, report)

    def _plain(
        self, generator: Generator, benchmark: Benchmark, device: torch.device, dtype: torch.dtype
    ) -> dict[str, Evaluation]:
        """One picture each: by the generator itself with one and more steps, and by other pipelines."""
        drawn = {f"{count} step{'s' * (count > 1)}": (generator, count) for count in (1, *self.steps)}
        for name in self.baselines:
            other = BlackBox.from_pretrained(name, device, dtype)
            drawn |= {f"{Path(name).name}, {count} steps": (other, count) for count in self.steps or (1,)}
        return {
            name: self._evaluation(by, {}, benchmark, 1, by.defaults.model_copy(update={"steps": count}))
            for name, (by, count) in drawn.items()
        }

    def _evaluation(
        self,
        generator: Generator,
        verifiers: dict[str, Verifier],
        benchmark: Benchmark,
        candidates: int,
        sampling: Sampling,
    ) -> Evaluation:
        return Evaluation(generator, verifiers, benchmark, candidates, self.images_per_prompt, self.seeds, sampling)


def _name(given: str) -> str:
    """A folder's last part, or what scores pictures; hub ids and known models as they are."""
    if Path(given).is_dir():
        return Path(given).absolute().name
    return "clipscore" if given.startswith("clipscore:") else given


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
    from forejudge.candidates.store import EvaluationFolder
    from forejudge.evaluation.suite import take_over

    for part in parts:
        typer.echo(f"{take_over(out, part)} prompts taken over from {part}")
    left = len(EvaluationFolder(out).missing)
    typer.echo(f"{left} prompts are missing" if left else "complete: the same eval with --out writes the figures")
