"""The report of an evaluation as JSON stores it and tables, plots and docs read it.

Accuracies are in [0, 1], each with its 95 % interval over prompts; costs are in the unit their field names. A strategy
is named by its verifier, its combination of verifiers, `random`, `oracle`, or a baseline such as "2 steps".
"""

from collections.abc import Mapping
from itertools import chain
from pathlib import Path
from typing import Annotated, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, NonNegativeInt, PositiveInt, model_validator

from forejudge.candidates.evaluation_store import EvaluationSettings
from forejudge.config_files import read_config
from forejudge.evaluation.bootstrap import Averages, Interval, Lead, Share
from forejudge.files import write_text
from forejudge.profiling.figures import Milliseconds, RoundsMs, SearchCosts
from forejudge.prompts.geneval import Task

REPORT_FILE = "figures.json"
RANDOM, ORACLE = "random", "oracle"
FIXED = "fixed"
"""Policy of as many candidates for every prompt."""
FIRST_EVALUATOR = "first evaluator"
"""Strategy that picks a candidate the first evaluator calls right, as a second evaluator sees it."""


def _check_ratio(ratio: Interval) -> Interval:
    if max(ratio.estimate, ratio.low, ratio.high) > 1:
        raise ValueError("expected a figure and its interval up to 1")
    return ratio


def _check_figure(figure: float) -> float:
    if figure < 0 or figure > 1:
        raise ValueError("expected a figure in [0, 1]")
    return figure


UndefinedShare = Annotated[float, AfterValidator(_check_figure)]
"""A share in [0, 1]; nan where the candidates leave it undefined."""
Ratio = Annotated[Interval, AfterValidator(_check_ratio)]
"""A figure of at most 1 with its interval; nan where the candidates leave it undefined."""
Cost = Annotated[float, Field(gt=0, allow_inf_nan=False)]
"""Milliseconds or TFLOP."""


class FrozenModel(BaseModel):
    """A part of a report: immutable, and closed to fields it doesn't declare."""

    model_config = ConfigDict(frozen=True, extra="forbid", ser_json_inf_nan="constants")


class EvaluationCosts(FrozenModel):
    """Costs by name: of searches with each verifier, of one image of each baseline, and of each stage.

    `timed` identifies the device, the generator and what was timed by name. `rounds_ms` of all searches and
    `baseline_rounds_ms` are milliseconds of the same rounds; both are empty where only medians were kept.
    """

    provenance: dict[str, str]
    searches: Annotated[dict[str, SearchCosts], Field(min_length=1)]
    baseline_ms: dict[str, Milliseconds]
    stage_flops: dict[str, NonNegativeInt]
    timed: dict[str, str] = {}
    baseline_rounds_ms: dict[str, RoundsMs] = {}

    @model_validator(mode="after")
    def _check_rounds(self) -> Self:
        timings = sum(len(search.milliseconds) for search in self.searches.values()) + len(self.baseline_ms)
        if self._all_rounds and (len(self._all_rounds) != timings or len(set(map(len, self._all_rounds))) > 1):
            raise ValueError("expected as many rounds of each search and baseline, or none at all")
        return self

    @property
    def rounds(self) -> int:
        """Number of rounds; 0 where only medians were kept."""
        return min(map(len, self._all_rounds), default=0)

    @property
    def _all_rounds(self) -> list[RoundsMs]:
        searches = chain.from_iterable(search.rounds_ms.values() for search in self.searches.values())
        return [*searches, *self.baseline_rounds_ms.values()]


class BestOfNRow(Averages):
    """Accuracy of one strategy that picks among `n` candidates."""

    n: PositiveInt
    strategy: str


class EqualCostRow(BestOfNRow):
    """Accuracy of one strategy within a budget, in the table's unit.

    `reference_lead` is the lead of the budget's first strategy over this one. Intervals cover test prompts and, where
    the rounds of a timing were kept, its uncertainty; `n_interval` (95 %) covers the timing alone.
    """

    budget: Cost
    steps: PositiveInt
    cost: Cost
    reference_lead: Lead
    n_interval: tuple[NonNegativeInt, NonNegativeInt] | None = None


class CompetitorRow(FrozenModel):
    """Lead of the first strategy, the reference, over a competitor within the cost of the competitor's own N.

    Accuracies are micro averages; the reference has as many candidates as fit. Intervals are those of `EqualCostRow`.
    """

    competitor: str
    n: PositiveInt
    cost: Cost
    accuracy: Share
    reference: str
    reference_n: PositiveInt
    reference_n_interval: tuple[NonNegativeInt, NonNegativeInt]
    reference_accuracy: Share
    lead: Lead


class CandidateCounts(FrozenModel):
    """Distribution of the number of candidates over searches."""

    mean: float
    p50: float
    p90: float
    p99: float


class MeanCostRow(Averages):
    """Accuracy of one strategy whose cost, on average over searches, is a budget.

    `policy` is `fixed`, options of searches that end by their verdicts, or a baseline, which has no `verifier`. Where
    one of its settings costs less than the budget and the next more, searches take either at random; `settings` holds
    the share of each. `lead` is that over fixed Best-of-N by the first verifier at the same mean `cost`, as
    `task_leads` are; costs are taken as known. `second_steps` is the share of searches whose winner takes a second
    step, `second_evaluators` the accuracy as each of them sees it, where that was recorded.
    """

    budget: Cost
    verifier: str | None
    policy: str
    settings: dict[str, Annotated[float, Field(gt=0, le=1)]]
    cost: Cost
    candidates: CandidateCounts
    second_steps: Annotated[float, Field(ge=0, le=1)]
    lead: Lead
    task_leads: dict[Task, Lead]
    second_evaluators: dict[str, Share]


class LeadRow(FrozenModel):
    """Lead of the first strategy over another one, both picking among `n` candidates (micro)."""

    n: PositiveInt
    first: str
    other: str
    lead: Lead


class RankingMetrics(FrozenModel):
    """How well one verifier ranks candidates: pooled AUROC, accuracy on pairs within a case, calibration and ties.

    `expected_calibration_error` is None without probabilities. `tie_rate` is the share of cases whose best score is
    shared.
    """

    auroc: UndefinedShare
    pair_accuracy: Ratio
    expected_calibration_error: UndefinedShare | None
    tie_rate: UndefinedShare


class VerifierReport(RankingMetrics):
    """Ranking metrics of a verifier with the share of the oracle gap it closes, by N."""

    oracle_gap_closed: Annotated[dict[PositiveInt, Ratio], Field(min_length=1)]


class SecondEvaluatorRow(FrozenModel):
    """Accuracy of one strategy as a second evaluator sees it."""

    n: PositiveInt
    strategy: str
    micro: Share


class SecondEvaluator(FrozenModel):
    """Agreement of a second evaluator with the first over all candidates, and Best-of-N as it sees it."""

    agreement: Share
    cohens_kappa: Ratio
    best_of_n: list[SecondEvaluatorRow]


class ProjectedCosts(FrozenModel):
    """Best-of-N at equal cost as counted for a generator of other proportions; budgets are in TFLOP."""

    generator: str
    equal_cost: list[EqualCostRow]
    stage_flops: dict[str, NonNegativeInt]
    equal_mean_cost: list[MeanCostRow] = []


class EvaluationReport(FrozenModel):
    """All figures of one evaluation."""

    provenance: dict[str, str]
    settings: EvaluationSettings
    test_cases: PositiveInt
    distinct_prompts: PositiveInt
    seeds: PositiveInt
    candidates: PositiveInt
    best_of_n: list[BestOfNRow]
    leads: list[LeadRow]
    verifiers: dict[str, VerifierReport]
    combination_tie_rates: dict[str, float]
    second_evaluators: dict[str, SecondEvaluator]
    baselines: dict[str, Averages]
    costs: EvaluationCosts
    equal_time: list[EqualCostRow]
    competitor_time: list[CompetitorRow] = []
    equal_mean_time: list[MeanCostRow] = []
    projected: ProjectedCosts | None = None

    @model_validator(mode="after")
    def _check_best_of_n(self) -> Self:
        strategies, ns = {row.strategy for row in self.best_of_n}, {row.n for row in self.best_of_n}
        is_whole = len({(row.strategy, row.n) for row in self.best_of_n}) == len(strategies) * len(ns)
        if not is_whole or not self.costs.searches.keys() <= strategies or max(ns, default=0) > self.candidates:
            raise ValueError(f"best_of_n: expected a row for each strategy and N up to {self.candidates}")
        return self

    @classmethod
    def read(cls, path: Path) -> "EvaluationReport":
        """Read a report. Raises CheckpointError naming the file, the field and what to do."""
        return read_config(path, cls, "the same `forejudge eval` writes the report anew")

    def write(self, path: Path) -> None:
        """Write the report as JSON. Raises OutputError."""
        write_text(path, self.model_dump_json(indent=1) + "\n")

    def by_strategy(self) -> Mapping[str, list[BestOfNRow]]:
        """Group Best-of-N by strategy, N rising."""
        names = dict.fromkeys(row.strategy for row in self.best_of_n)
        rows = sorted(self.best_of_n, key=lambda row: row.n)
        return {name: [row for row in rows if row.strategy == name] for name in names}
