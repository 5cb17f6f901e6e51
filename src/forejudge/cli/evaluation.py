"""What was asked of `forejudge eval`, and how it is carried out."""

from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import torch
import typer

from forejudge.cli.evaluation_judges import Judge, load_judges
from forejudge.cli.figure_tables import print_figures
from forejudge.cli.licences import tell_licences
from forejudge.cli.progress import waiting
from forejudge.cli.stage_progress import StageProgress
from forejudge.cli.tables import show_warnings
from forejudge.device import resolve_device, resolve_dtype
from forejudge.errors import InvalidRequest
from forejudge.evaluation.benchmarks import Benchmark
from forejudge.evaluation.controls import with_controls
from forejudge.evaluation.equal_cost import BUDGET_NS
from forejudge.evaluation.figures import Weights
from forejudge.evaluation.run import Evaluation
from forejudge.evaluation.suite import FIGURES_FILE, FinishedSuite, Suite
from forejudge.files import prepare_folder, write_json
from forejudge.generators import load_generator
from forejudge.generators.base import Generator, Sampling
from forejudge.generators.black_box import BlackBox
from forejudge.progress import Report
from forejudge.provenance import provenance
from forejudge.shard import Shard
from forejudge.verifiers import load_verifier
from forejudge.verifiers.base import Verifier

_MINIATURE = "miniature"  # whose proportions are its own: costs on SANA-Sprint are shown beside them


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
        elsewhere = suite.on_sana_sprint() if self.generator == _MINIATURE else None
        found = finished.figures(self.ns, self.budgets_ms, combined, elsewhere)
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
