"""Results of a profile as JSON holds them. Times are milliseconds, memory is bytes, N counts candidates."""

from typing import Annotated, Self

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, NonNegativeInt, PositiveInt

# Stages of a search, in the order they run. "later steps" exist only where a generator takes more than one step, "clip"
# and "preview" only for the kind of verifier input of that name, which has models of its own; scoring has a stage for
# each kind of verifier (see `scoring_stage`).
ENCODE, PREFIX, SUFFIX, LATER_STEPS, DECODE = "encode", "prefix", "suffix", "later steps", "decode"
CLIP, PREVIEW = "clip", "preview"
WARM_UP = 2  # uncounted rounds before those that are measured

Milliseconds = Annotated[float, Field(gt=0, allow_inf_nan=False)]
RoundsMs = Annotated[tuple[Milliseconds, ...], Field(min_length=1)]
"""Milliseconds of one workload in each round."""


def scoring_stage(kind: str) -> str:
    """Return the name of the stage in which connector and language model read one kind of verifier input."""
    return f"language model, {kind}"


class _FrozenModel(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Timing(_FrozenModel):
    """Milliseconds over `rounds` rounds: the median, the quartiles that hold half of them, and the fastest."""

    median: float
    lower_quartile: float
    upper_quartile: float
    fastest: float
    rounds: int

    @classmethod
    def from_rounds(cls, milliseconds: list[float]) -> Self:
        """Summarize the milliseconds of each round."""
        lower, median, upper = np.quantile(milliseconds, (0.25, 0.5, 0.75)).tolist()
        return cls(
            median=median,
            lower_quartile=lower,
            upper_quartile=upper,
            fastest=min(milliseconds),
            rounds=len(milliseconds),
        )


class DeviceRates(_FrozenModel):
    """Best measured rates: FLOPs per second of matrix products in one dtype, bytes per second read or written."""

    flops_per_second: float
    bytes_per_second: float


class DeadlineAdherence(_FrozenModel):
    """Searches under one time budget, from the prompt to the image in memory, with warm models.

    The predicted N of a search is the one that fits by the costs learned from the searches before it. `on_time`,
    `on_time_with_grace` and `reached_predicted_n` are shares of the runs: those that took no longer than the budget
    (with its 95 % Wilson interval), than 1.1 times the budget, and those that scored at least the predicted N.
    """

    budget_ms: float
    runs: int
    median_predicted_n: float
    median_n: float
    min_n: int
    on_time: float
    on_time_interval: tuple[float, float]
    on_time_with_grace: float
    reached_predicted_n: float
    milliseconds: Timing
    slowest: float


class SearchCosts(_FrozenModel):
    """Costs of a search with one verifier.

    `milliseconds` is the median by N, `rounds_ms` its rounds, in which all strategies of an evaluation took turns
    (empty where only medians were kept). `scoring_bytes` is the peak by N while candidates are scored. FLOPs are split
    into those of a search and those of each candidate.
    """

    milliseconds: Annotated[dict[PositiveInt, Milliseconds], Field(min_length=1)]
    fixed_flops: NonNegativeInt
    candidate_flops: NonNegativeInt
    scoring_bytes: dict[PositiveInt, NonNegativeInt]
    rounds_ms: dict[PositiveInt, RoundsMs] = {}


class ProfileSettings(_FrozenModel):
    """Settings of a profile; `device_note` names the kind of device, `verifiers` are keyed by their kind of input."""

    device_note: str
    generator: str
    verifiers: dict[str, str]
    num_prefix_blocks: int
    ns: tuple[int, ...]
    height: int
    width: int
    device: str
    dtype: str
    compiled: bool = False
    rounds: int
    warm_up: int

    @property
    def models(self) -> str:
        """The generator, its dtype and whether it is compiled, in words."""
        return f"{self.generator}, {self.dtype}" + (", compiled" if self.compiled else "")


class TimingWithRoofline(_FrozenModel):
    """A time beside its roofline (the least it could be), and the ratio of the median to it."""

    milliseconds: Timing
    roofline_ms: float
    roofline_ratio: float

    @classmethod
    def from_timing(cls, milliseconds: Timing, roofline_ms: float) -> Self:
        """Add the ratio of the median to the roofline."""
        ratio = milliseconds.median / roofline_ms
        return cls(milliseconds=milliseconds, roofline_ms=roofline_ms, roofline_ratio=ratio)


class StageProfile(_FrozenModel):
    """One stage by itself; `measurements` holds the batch sizes that fit in memory."""

    flops: int
    weight_bytes: int
    measurements: dict[int, TimingWithRoofline]


class Memory(_FrozenModel):
    """Peak memory by N, beside the resident weights and with them."""

    scoring: dict[int, int]
    end_to_end: dict[int, int]
    weights: int
    scoring_with_weights: dict[int, int]
    end_to_end_with_weights: dict[int, int]

    @classmethod
    def from_peaks(cls, scoring: dict[int, int], end_to_end: dict[int, int], weights: int) -> Self:
        """Add the sums with the weights."""
        return cls(
            scoring=scoring,
            end_to_end=end_to_end,
            weights=weights,
            scoring_with_weights={n: peak + weights for n, peak in scoring.items()},
            end_to_end_with_weights={n: peak + weights for n, peak in end_to_end.items()},
        )


class MarginalCost(_FrozenModel):
    """Cost of one more candidate: the slope from the smallest N to the largest; `bytes` is that of the scoring peak."""

    milliseconds: float
    flops: float
    bytes: float


class StrategyProfile(_FrozenModel):
    """A search strategy from the prompt to the image. With a single N it has no marginal cost."""

    strategy: str
    verifier: str
    batch_size: int
    flops: dict[int, int]
    measurements: dict[int, TimingWithRoofline]
    memory: Memory
    marginal_cost: MarginalCost | None

    @property
    def name(self) -> str:
        """Strategy and kind of verifier, as tables show them."""
        return f"{self.strategy}, {self.verifier}"


class Saving(_FrozenModel):
    """Percentage that one strategy saves of another's cost.

    `milliseconds` and `flops` compare one more candidate; the bytes compare the peak at the smallest N, weights
    included, while candidates are scored and end to end.
    """

    strategy: str
    baseline: str
    milliseconds: float
    flops: float
    scoring_bytes: float
    end_to_end_bytes: float | None


class Profile(_FrozenModel):
    """A whole profile with its provenance (see `forejudge.result.provenance`)."""

    provenance: dict[str, str]
    settings: ProfileSettings
    rates: DeviceRates
    stages: dict[str, StageProfile]
    strategies: tuple[StrategyProfile, ...]
    savings: tuple[Saving, ...]
    deadline_adherence: tuple[DeadlineAdherence, ...] = ()


PAPER = Saving(
    strategy="VHS", baseline="MLLM w/ CLIP", milliseconds=63.3, flops=62.9, scoring_bytes=14.5, end_to_end_bytes=None
)
"""The paper's savings (arXiv 2603.22492), both run like `official`; it does not say which part its memory covers."""
