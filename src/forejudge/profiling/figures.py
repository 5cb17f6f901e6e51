"""All that a profile finds, as JSON holds it. Times are milliseconds, memory is bytes, N counts candidates."""

from pydantic import BaseModel, ConfigDict

from forejudge.profiling.measure import Timing
from forejudge.profiling.roofline import DeviceRates
from forejudge.profiling.searches import DeadlineAdherence

WARM_UP = 2  # rounds before those that count


class _FrozenModel(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class ProfileSettings(_FrozenModel):
    """What was measured, and how; `device_note` says of what kind of device. Verifiers go by what they read."""

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
        """In words: which, in what precision, and whether they are compiled."""
        return f"{self.generator}, {self.dtype}" + (", compiled" if self.compiled else "")


class TimingWithRoofline(_FrozenModel):
    """A time beside the least that it could be; the ratio says how many times the floor was needed."""

    milliseconds: Timing
    roofline_ms: float
    roofline_ratio: float

    @classmethod
    def from_timing(cls, milliseconds: Timing, roofline_ms: float) -> "TimingWithRoofline":
        """With the ratio of the median."""
        ratio = milliseconds.median / roofline_ms
        return cls(milliseconds=milliseconds, roofline_ms=roofline_ms, roofline_ratio=ratio)


class StageProfile(_FrozenModel):
    """A stage by itself; `measurements` has the batch sizes, without those for which memory did not suffice."""

    flops: int
    weight_bytes: int
    measurements: dict[int, TimingWithRoofline]


class Memory(_FrozenModel):
    """The most that is held at once, by N, beside the weights that lie there anyway and with them."""

    scoring: dict[int, int]
    end_to_end: dict[int, int]
    weights: int
    scoring_with_weights: dict[int, int]
    end_to_end_with_weights: dict[int, int]

    @classmethod
    def from_peaks(cls, scoring: dict[int, int], end_to_end: dict[int, int], weights: int) -> "Memory":
        """The sums are made here."""
        return cls(
            scoring=scoring,
            end_to_end=end_to_end,
            weights=weights,
            scoring_with_weights={n: peak + weights for n, peak in scoring.items()},
            end_to_end_with_weights={n: peak + weights for n, peak in end_to_end.items()},
        )


class MarginalCost(_FrozenModel):
    """What one more candidate costs: the slope from the smallest to the largest N; of memory while they are judged."""

    milliseconds: float
    flops: float
    bytes: float


class StrategyProfile(_FrozenModel):
    """A way to pick the best of N, from the prompt to the picture. Without a second N there is no slope."""

    strategy: str
    verifier: str
    batch_size: int
    flops: dict[int, int]
    measurements: dict[int, TimingWithRoofline]
    memory: Memory
    marginal_cost: MarginalCost | None

    @property
    def name(self) -> str:
        """As tables have it."""
        return f"{self.strategy}, {self.verifier}"


class Saving(_FrozenModel):
    """What one way saves of another's costs, in per cent: of one more candidate, and of all memory for the first one.

    That is the most that is held, weights too, while it is judged, and from the prompt to the picture.
    """

    strategy: str
    baseline: str
    milliseconds: float
    flops: float
    scoring_bytes: float
    end_to_end_bytes: float | None


class Profile(_FrozenModel):
    """Everything, with where and with what it was made (see `provenance`)."""

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
"""As published (arXiv 2603.22492), both run as `official` runs them; for which work memory was taken is not said."""
