"""All that a profile finds, as JSON holds it. Times are milliseconds, memory is bytes, N counts candidates."""

from pydantic import BaseModel, ConfigDict

from forejudge.profiling.measure import Timing
from forejudge.profiling.roofline import DeviceRates
from forejudge.profiling.searches import KeptBudget

WARM_UP = 2  # rounds before those that count


class _Figures(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Settings(_Figures):
    """What was measured, and how; `figures` says of what kind of device. Verifiers go by what they read."""

    figures: str
    generator: str
    verifiers: dict[str, str]
    prefix_blocks: int
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


class Measured(_Figures):
    """A time beside the least that it could be; the ratio says how many times the floor was needed."""

    milliseconds: Timing
    floor_milliseconds: float
    times_floor: float

    @classmethod
    def against(cls, milliseconds: Timing, floor_milliseconds: float) -> "Measured":
        """With the ratio of the median."""
        ratio = milliseconds.median / floor_milliseconds
        return cls(milliseconds=milliseconds, floor_milliseconds=floor_milliseconds, times_floor=ratio)


class StageFigures(_Figures):
    """A stage by itself; `at` has the batch sizes, without those for which memory did not suffice."""

    flops: int
    weight_bytes: int
    at: dict[int, Measured]


class Memory(_Figures):
    """The most that is held at once, by N, beside the weights that lie there anyway and with them."""

    judging: dict[int, int]
    joint: dict[int, int]
    weights: int
    judging_with_weights: dict[int, int]
    joint_with_weights: dict[int, int]

    @classmethod
    def of(cls, judging: dict[int, int], joint: dict[int, int], weights: int) -> "Memory":
        """The sums are made here."""
        return cls(
            judging=judging,
            joint=joint,
            weights=weights,
            judging_with_weights={n: peak + weights for n, peak in judging.items()},
            joint_with_weights={n: peak + weights for n, peak in joint.items()},
        )


class OneMore(_Figures):
    """What one more candidate costs: the slope from the smallest to the largest N; of memory while they are judged."""

    milliseconds: float
    flops: float
    bytes: float


class StrategyFigures(_Figures):
    """A way to pick the best of N, from the prompt to the picture. Without a second N there is no slope."""

    strategy: str
    verifier: str
    batch_size: int
    flops: dict[int, int]
    at: dict[int, Measured]
    memory: Memory
    one_more: OneMore | None

    @property
    def name(self) -> str:
        """As tables have it."""
        return f"{self.strategy}, {self.verifier}"


class Saving(_Figures):
    """What one way saves of another's costs, in per cent: of one more candidate, and of all memory for the first one.

    That is the most that is held, weights too, while it is judged, and from the prompt to the picture.
    """

    of: str
    against: str
    milliseconds: float
    flops: float
    judging_bytes: float
    joint_bytes: float | None


class Profile(_Figures):
    """Everything, with where and with what it was made (see `provenance`)."""

    made: dict[str, str]
    settings: Settings
    rates: DeviceRates
    stages: dict[str, StageFigures]
    strategies: tuple[StrategyFigures, ...]
    savings: tuple[Saving, ...]
    budgets: tuple[KeptBudget, ...] = ()


PAPER = Saving(of="VHS", against="MLLM w/ CLIP", milliseconds=63.3, flops=62.9, judging_bytes=14.5, joint_bytes=None)
"""As published (arXiv 2603.22492), both run as `official` runs them; for which work memory was taken is not said."""
