"""A whole evaluation: candidates with every verifier's verdict, baselines, measured costs, and the report of them all.

Files of a folder, beside those of its `EvaluationStore`:

    costs.json                  costs of searches, measured before any quality is known
    policy_costs.json           costs of batches and priors, with --record-for simulate or --adaptive
    baselines/2-steps/          images without a verifier, kept apart from those GenEval's evaluator would read
    figures.json                the report
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from math import isfinite, nan
from pathlib import Path
from statistics import median
from typing import Any

import torch

from forejudge.candidates.collect import EvaluationCollector, check_prompts
from forejudge.candidates.evaluation_store import EvaluationStore
from forejudge.config_files import read_config
from forejudge.device import dtype_name
from forejudge.errors import InvalidRequest
from forejudge.evaluation.build_report import Baseline, VerifierWeights, build_report
from forejudge.evaluation.equal_cost import BUDGET_NS
from forejudge.evaluation.policy_costs import POLICY_COSTS_FILE, PolicyCosts, policy_workloads
from forejudge.evaluation.report import EvaluationCosts, EvaluationReport
from forejudge.evaluation.strategies import load_outcomes
from forejudge.evaluators.base import Evaluator
from forejudge.evaluators.benchmarks import Benchmark, load_benchmark, second_evaluators_of
from forejudge.evaluators.loading import GENEVAL, GenEvalModels, load_evaluator
from forejudge.files import exists, is_dir, write_text
from forejudge.generators import load_baseline, load_generator
from forejudge.generators.base import Generator, SamplingParams
from forejudge.hub import Source
from forejudge.profiling.figures import WARM_UP
from forejudge.profiling.measure import Workload, time_rounds
from forejudge.profiling.searches import generation_workload, search_costs, search_workloads, stage_flops
from forejudge.progress import ProgressCallback, Shard, Stopwatch
from forejudge.result import provenance
from forejudge.types import Candidates, Verdict
from forejudge.verifiers import load_verifier
from forejudge.verifiers.base import Verifier
from forejudge.verifiers.cross_attention import CrossAttentionVerifier
from forejudge.verifiers.language_model import LanguageModelVerifier

TIMED_NS = (1, 2, 4, 8, 16)
COSTS_FILE, BASELINES_FOLDER = "costs.json", "baselines"
SIMULATE = "simulate"
_ROUNDS = 21


@dataclass(frozen=True)
class EvaluationOptions:
    """Options of `forejudge eval`, by the names they have there.

    `budgets_ms` None derives the budgets from the first verifier's costs. `evaluator` None takes the benchmark's own.
    With `policies` what searches of policies cost is measured; they finish winners whose probability is below
    `refine_below` in a second step.
    """

    generator: str
    verifiers: Sequence[str]
    benchmark: str
    ns: Sequence[int]
    evaluator: str | None = None
    detector: str | None = None
    color_model: str | None = None
    second_evaluators: Sequence[str] = ()
    budgets_ms: Sequence[int] | None = None
    images_per_prompt: int = 1
    seeds: int = 1
    steps: Sequence[int] = ()
    baselines: Sequence[str] = ()
    combined: Sequence[str] = ()
    controls: bool = False
    record_for: str | None = None
    policies: bool = False
    refine_below: float = 0.0

    @cached_property
    def verifiers_by_name(self) -> dict[str, str]:
        """The verifiers as given, by their names in tables. Raises InvalidRequest for two of one name."""
        by_name = {_table_name(name_or_path): name_or_path for name_or_path in self.verifiers}
        if len(by_name) < len(self.verifiers):
            raise InvalidRequest(
                f"two of the verifiers {', '.join(self.verifiers)} have one name: rename the folder of one"
            )
        return by_name

    @cached_property
    def for_simulation(self) -> bool:
        """True if the folder is to hold what `forejudge simulate` needs. Raises InvalidRequest for another purpose."""
        if self.record_for not in (None, SIMULATE):
            raise InvalidRequest(f"--record-for {self.record_for!r}: expected {SIMULATE}, or leave it out")
        return self.record_for == SIMULATE

    @cached_property
    def combinations(self) -> list[VerifierWeights]:
        """The combinations, parsed. Raises InvalidRequest for an unknown verifier or a weight that isn't a number."""
        return [self._weights(text) for text in self.combined]

    def _weights(self, text: str) -> VerifierWeights:
        weights: dict[str, float] = {}
        for part in text.split(","):
            name, _, weight = part.partition("=")
            try:
                weights[name] = float(weight or 1)
            except ValueError:
                weights[name] = nan
            if not isfinite(weights[name]):
                raise InvalidRequest(f"--combine {text!r}: the weight {weight!r} is not a number")
        if len(weights) < 2 or not weights.keys() <= self.verifiers_by_name.keys():
            raise InvalidRequest(
                f"--combine {text!r}: expected two or more verifiers out of {', '.join(self.verifiers_by_name)}"
            )
        return weights

    def load_evaluators(self, device: torch.device) -> tuple[Benchmark, dict[str, Evaluator]]:
        """Load the benchmark with its evaluator, and the second evaluators by name.

        The detector and the color model go to `geneval`, wherever it is among the evaluators. Raises InvalidRequest and
        CheckpointError.
        """

        def load(name: str) -> Evaluator:
            if name != GENEVAL and GENEVAL in (self.evaluator, *self.second_evaluators):
                return load_evaluator(name, GenEvalModels(device=str(device)))
            return load_evaluator(name, GenEvalModels(self.detector, self.color_model, str(device)))

        benchmark = load_benchmark(self.benchmark, None if self.evaluator is None else load(self.evaluator))
        return benchmark, second_evaluators_of(benchmark, [load(name) for name in self.second_evaluators])


def _table_name(name_or_path: str) -> str:
    """Name a verifier by its folder's last part; keep hub ids and known models as they are."""
    if is_dir(name_or_path):
        return Path(name_or_path).absolute().name
    return "clipscore" if name_or_path.startswith("clipscore:") else name_or_path


def _second_step(options: EvaluationOptions, generator: Generator) -> dict[str, Any]:
    """Return which second steps a collector evaluates. Raises InvalidRequest where the generator takes more steps."""
    is_one_step, refine_below = generator.defaults.steps == 1, options.refine_below
    if options.for_simulation:
        return {"second_step": is_one_step}
    if refine_below and not is_one_step:
        raise InvalidRequest(
            f"refine_below={refine_below:g} needs a generator of one step, and {generator.name} takes "
            f"{generator.defaults.steps}: leave it out"
        )
    return {"second_step": refine_below > 0, "second_step_below": refine_below or None}


@dataclass(frozen=True)
class Suite:
    """An evaluation, ready to run in `folder`.

    `main` generates candidates for all its verifiers; each of `baselines` makes one image without a verifier, by the
    name of its row. `timed_verifiers` are timed and compared at equal cost, in this order: the first sets the budgets.
    """

    folder: Path
    main: EvaluationCollector
    timed_verifiers: Mapping[str, Verifier]
    baselines: Mapping[str, EvaluationCollector]
    progress: ProgressCallback
    warnings: Sequence[str] = field(default_factory=list)
    for_policies: bool = False

    @classmethod
    def load(
        cls,
        options: EvaluationOptions,
        folder: Path,
        device: torch.device,
        dtype: torch.dtype,
        progress: ProgressCallback,
    ) -> "Suite":
        """Load everything the options name. Raises InvalidRequest, CheckpointError and MissingExtra."""
        _ = options.combinations, options.for_simulation  # refused now, not after hours
        benchmark, second_evaluators = options.load_evaluators(device)
        check_prompts(options.generator, benchmark.lines)
        generator = load_generator(options.generator, device, dtype)
        timed = {name: load_verifier(given, device, dtype) for name, given in options.verifiers_by_name.items()}
        warnings = [warning for verifier in timed.values() for warning in verifier.check(generator)]
        verifiers = with_controls(timed) if options.controls else timed

        def run(
            source: Generator, verifiers: Mapping[str, Verifier], candidates: int, sampling: SamplingParams
        ) -> EvaluationCollector:
            per_case = options.images_per_prompt, options.seeds
            return EvaluationCollector(source, dict(verifiers), benchmark, candidates, *per_case, sampling)

        sources = {f"{count} step{'s' * (count > 1)}": (generator, count) for count in (1, *options.steps)}
        for name in options.baselines:
            other = load_baseline(name, device, dtype)
            sources |= {f"{Path(name).name}, {count} steps": (other, count) for count in options.steps or (1,)}
        baselines = {
            name: run(source, {}, 1, source.defaults.model_copy(update={"steps": count}))
            for name, (source, count) in sources.items()
        }
        candidates = max(*options.ns, max(BUDGET_NS) if options.budgets_ms is None else 1)
        main = run(generator, verifiers, candidates, generator.defaults)
        main = replace(main, second_evaluators=second_evaluators, **_second_step(options, generator))
        return cls(folder, main, timed, baselines, progress, warnings, options.for_simulation or options.policies)

    @property
    def sources(self) -> list[Source | None]:
        """Sources of all weights; None for parts without one."""
        return [*self.main.generator.sources, *(verifier.source for verifier in self.timed_verifiers.values())]

    def run(self, shard: Shard) -> None:
        """Measure costs, before any quality is known; then generate the shard of everything.

        Raises InvalidRequest, before anything is measured, for a folder begun with other settings and for a prompt that
        a generator refuses; CheckpointError for costs that can't be read.
        """
        for store, collector in self._parts:
            collector.check(collector.blocks_left(store, shard), store)
        if not self._costs_are_known():
            self._measure_costs()
        for store, collector in self._parts:
            collector.run(store, shard, self.progress)

    @property
    def missing(self) -> int:
        """Number of prompts still to be generated, those of baselines included."""
        return sum(len(store.missing) for store, _ in self._parts)

    @property
    def _parts(self) -> list[tuple[EvaluationStore, EvaluationCollector]]:
        """All collectors with their stores."""
        baselines = [(baseline_folder(self.folder, name), collector) for name, collector in self.baselines.items()]
        return [(EvaluationStore(folder), collector) for folder, collector in [(self.folder, self.main), *baselines]]

    def report(self, options: EvaluationOptions) -> EvaluationReport:
        """Build the report of the finished folder, see `folder_report`."""
        made_by = provenance(self.main.generator.device)
        return folder_report(
            self.folder, list(self.baselines), made_by, options.ns, options.budgets_ms, options.combinations
        )

    def _costs_are_known(self) -> bool:
        """Tell whether the folder's costs are those of this generator, its verifiers and baselines on this device."""
        files = [COSTS_FILE, *([POLICY_COSTS_FILE] if self.for_policies else [])]
        if not all(exists(self.folder / file) for file in files):
            return False
        known = read_costs(self.folder).timed
        return all(known.get(name) == digest for name, digest in self._timed.items())

    @cached_property
    def _timed(self) -> dict[str, str]:
        """Identity of all that costs depend on, by name."""
        generator = self.main.generator
        return {
            "device": provenance(generator.device)["device"],
            "generator": f"{generator.fingerprint} {dtype_name(generator.dtype)}",
            **{f"verifier {name}": verifier.digest for name, verifier in self.timed_verifiers.items()},
            **{
                f"baseline {name}": f"{each.generator.fingerprint} {each.sampling.steps} steps"
                for name, each in self.baselines.items()
            },
        }

    def _measure_costs(self) -> None:
        """Time searches, their parts and baselines in turns, so that a disturbance of the machine affects all alike."""
        generator, prompt = self.main.generator, self.main.benchmark.lines[0].prompt
        ns = [n for n in TIMED_NS if n <= self.main.candidates]
        parts: dict[Any, Workload] = {}
        if self.for_policies:
            parts |= policy_workloads(generator, self.timed_verifiers, prompt, self.main.second_step)
        workloads: dict[Any, Workload] = {
            (name, n): search
            for name, verifier in self.timed_verifiers.items()
            for n, search in search_workloads(generator, verifier, prompt, ns).items()
        } | {
            (name, 1): generation_workload(each.generator, prompt, each.sampling.steps)
            for name, each in self.baselines.items()
        }
        stopwatch = Stopwatch("timing", 0, WARM_UP + _ROUNDS)
        rounds_ms = time_rounds(
            workloads | parts, generator.device, _ROUNDS, WARM_UP, lambda done: self.progress(stopwatch.at(done))
        )
        costs = EvaluationCosts(
            provenance=provenance(generator.device),
            timed=self._timed,
            searches={
                name: search_costs(generator, verifier, prompt, {n: rounds_ms[name, n] for n in ns})
                for name, verifier in self.timed_verifiers.items()
            },
            baseline_ms={name: median(rounds_ms[name, 1]) for name in self.baselines},
            baseline_rounds_ms={name: tuple(rounds_ms[name, 1]) for name in self.baselines},
            stage_flops=stage_flops(generator, self.timed_verifiers, prompt),
        )
        if self.for_policies:
            PolicyCosts.from_rounds(rounds_ms, self.timed_verifiers).write(self.folder)
        else:  # those of an earlier run may be of another device
            (self.folder / POLICY_COSTS_FILE).unlink(missing_ok=True)
        write_text(self.folder / COSTS_FILE, costs.model_dump_json(indent=1) + "\n")


def read_costs(folder: Path) -> EvaluationCosts:
    """Read the costs of an evaluation. Raises CheckpointError."""
    return read_config(folder / COSTS_FILE, EvaluationCosts, "delete the file, and the same eval measures costs anew")


def folder_report(
    folder: Path,
    baselines: Sequence[str],
    made_by: Mapping[str, str],
    ns: Sequence[int],
    budgets_ms: Sequence[float] | None,
    combined: Sequence[VerifierWeights],
) -> EvaluationReport:
    """Build the report of a finished folder; `made_by` is the provenance of the report itself.

    Raises CheckpointError where prompts are missing, InvalidRequest for a budget without room for one candidate.
    """
    return build_report(
        made_by,
        EvaluationStore(folder).settings,
        load_outcomes(EvaluationStore(folder)),
        ns,
        combined,
        load_baselines(folder, baselines),
        read_costs(folder),
        budgets_ms,
    )


def load_baselines(folder: Path, names: Sequence[str]) -> dict[str, Baseline]:
    """Read the finished baselines of an evaluation. Raises CheckpointError where prompts are missing."""
    folders = {name: EvaluationStore(baseline_folder(folder, name)) for name in names}
    return {name: Baseline(load_outcomes(each), each.settings.steps) for name, each in folders.items()}


def baseline_folder(folder: Path, name: str) -> Path:
    """Return the folder of a baseline's images."""
    return folder / BASELINES_FOLDER / name.replace(" ", "-").replace("/", "--")


def merge_evaluation(folder: Path, part: Path) -> int:
    """Copy the prompts of another part of the evaluation, baselines included; return how many were new.

    Raises CheckpointError for a folder that holds no evaluation, InvalidRequest for one with other settings.
    """
    new = EvaluationStore(folder).merge(EvaluationStore(part))
    for baseline in sorted((folder / BASELINES_FOLDER).glob("*")):
        EvaluationStore(baseline).merge(EvaluationStore(part / BASELINES_FOLDER / baseline.name))
    return new


class _Control(Verifier):
    """A verifier that scores something else than the candidates' own hidden states."""

    def __init__(self, verifier: LanguageModelVerifier | CrossAttentionVerifier) -> None:
        self.name, self.verifier = verifier.name, verifier
        self.reads, self.calibrated, self.digest = verifier.reads, verifier.calibrated, verifier.digest

    def check(self, generator: Generator) -> list[str]:
        """See `Verifier.check`."""
        return self.verifier.check(generator)


class ShuffledStates(_Control):
    """Control that scores each candidate by another one's hidden state, at random: its choice is blind."""

    def score(self, prompt: str, candidates: Candidates) -> list[Verdict]:
        """See `Verifier.score`."""
        rng = torch.Generator().manual_seed(candidates.seeds[0])
        rows = torch.randperm(len(candidates), generator=rng).tolist()
        views = {stage: candidates[rows].views[stage] for stage in self.reads}
        return self.verifier.score(prompt, replace(candidates, views=views))


class ZeroedStates(_Control):
    """Control that scores the mean hidden state, which is zero once standardized: the prompt alone decides."""

    def score(self, prompt: str, candidates: Candidates) -> list[Verdict]:
        """See `Verifier.score`. Only for verifiers that read a hidden state."""
        (stage,) = self.reads
        views = {stage: self.verifier.model.connector.mean_states(candidates.tensor(stage))}
        return self.verifier.score(prompt, replace(candidates, views=views))


def with_controls(verifiers: Mapping[str, Verifier]) -> dict[str, Verifier]:
    """Add the two controls of the first verifier. Raises InvalidRequest where it doesn't read hidden states."""
    first = next(iter(verifiers.values()))
    if not isinstance(first, LanguageModelVerifier | CrossAttentionVerifier) or not first.config.reads.startswith(
        "hidden:"
    ):
        raise InvalidRequest(f"--controls need a first verifier that reads hidden states, which {first.name} doesn't")
    return {**verifiers, "states shuffled": ShuffledStates(first), "states zeroed": ZeroedStates(first)}
