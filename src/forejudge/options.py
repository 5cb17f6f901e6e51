"""Options that a caller sets. The library, the command line and a server share these models.

Every option is declared here once: its name, type, range, default and description. `forejudge generate` derives its
command-line options from the fields, and `BestOfN` takes them as keyword arguments.
"""

import operator
from collections.abc import Iterable
from itertools import islice
from typing import Annotated, Any, Literal, Self, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from forejudge.errors import InvalidRequest, validation_message

DEFAULT_N = 8
MAX_SEED = 2**32 - 1
MAX_N = 10**6  # candidates of one search, whose seeds are derived as they are needed
MAX_COUNT = 10_000  # of anything that is laid out before the work begins: candidates or images of a prompt, rounds, ...
MAX_PROMPTS = 1_000_000  # of one prompt file
MAX_STEPS = 64
_MAX_PIXELS = 16_384  # a side
MAX_MS = 10**12
_MAX_SCALE = 1000.0


def _whole(value: object) -> object:
    """Convert integers of NumPy and torch. Raises ValueError for a float, a bool or text, which would be rounded."""
    if value is None:
        return None
    try:
        assert not isinstance(value, bool)
        return operator.index(value)  # type: ignore[arg-type]
    except (AssertionError, TypeError):
        raise ValueError(f"expected a whole number, not {type(value).__name__}") from None


def _real(value: object) -> object:
    """Convert numbers of NumPy and torch. Raises ValueError for a bool, text, or anything else that is no number."""
    if value is None or type(value) in (int, float):
        return value
    try:
        assert not isinstance(value, bool | str | bytes)
        return float(value)  # type: ignore[arg-type]
    except (AssertionError, TypeError, ValueError, RuntimeError, OverflowError):
        raise ValueError(f"expected a number, not {type(value).__name__}") from None


def _sequence(value: object) -> object:
    """Turn arrays, tensors, ranges and iterators into a tuple of at most MAX_COUNT + 1 items."""
    if isinstance(value, str | bytes | dict | set | frozenset) or not isinstance(value, Iterable):
        return value
    try:
        return tuple(islice(value, MAX_COUNT + 1))
    except TypeError:  # a tensor without dimensions
        return value


Whole = Annotated[int, BeforeValidator(_whole)]
OptionalWhole = Annotated[int | None, BeforeValidator(_whole)]
Real = Annotated[float, BeforeValidator(_real)]
OptionalReal = Annotated[float | None, BeforeValidator(_real)]
Count = Annotated[Whole, Field(ge=1, le=MAX_COUNT)]
LargeCount = Annotated[int, Field(gt=0, le=10**9)]  # of rows or steps, which are not laid out before
Seed = Annotated[Whole, Field(ge=0, le=MAX_SEED)]
Dtype = Literal["auto", "float32", "bfloat16", "float16"]
AnyOptions = TypeVar("AnyOptions", bound=BaseModel)


class SamplingParams(BaseModel):
    """How an image is generated. In a search, fields that were not set come from the generator's defaults."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    steps: Whole = Field(
        default=1, ge=1, le=MAX_STEPS, description="Denoising steps (default: the generator's own, mostly 1)."
    )
    guidance_scale: OptionalReal = Field(
        default=None, ge=0, le=_MAX_SCALE, description="Strength of prompt guidance (default: the generator's own)."
    )
    height: OptionalWhole = Field(
        default=None, ge=1, le=_MAX_PIXELS, description="Height in pixels (default: the generator's own)."
    )
    width: OptionalWhole = Field(
        default=None, ge=1, le=_MAX_PIXELS, description="Width in pixels (default: the generator's own)."
    )
    lora_scale: Real = Field(
        default=1.0, ge=-_MAX_SCALE, le=_MAX_SCALE, description="Weight of the pipeline's LoRA adapters."
    )

    def with_defaults(self, defaults: Self) -> Self:
        """Take the fields that were not set from `defaults`."""
        return defaults.model_copy(update=self.model_dump(include=self.model_fields_set))


class SearchOptions(BaseModel):
    """Options of one search: the candidates, when to stop, and which candidates to finish.

    The search stops after `n` candidates, before `budget_ms` have passed, at the first candidate whose calibrated
    probability reaches `until`, or when further ones are not worth their `price`, whichever comes first. Without `n`,
    `max_n` caps the other three; without any of the four, `n` is 8, or `max_n` if that is less.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    n: OptionalWhole = Field(default=None, ge=1, le=MAX_N, description=f"Number of candidates (default: {DEFAULT_N}).")
    budget_ms: OptionalReal = Field(
        default=None,
        gt=0,
        le=MAX_MS,
        description="Time budget in milliseconds, from the prompt to the finished images; as many candidates as fit.",
    )
    until: OptionalReal = Field(
        default=None, gt=0, le=1, description="Stop at the first candidate whose probability reaches this value."
    )
    price: OptionalReal = Field(
        default=None,
        ge=0,
        le=1,
        description="Stop when further candidates are expected to add less than this to the best probability, each; "
        "0.006 is a good start.",
    )
    max_n: Whole = Field(
        default=64,
        ge=1,
        le=MAX_N,
        description="Most candidates if a budget, a probability or a price ends the search.",
    )
    seed: Seed = Field(default=0, description="Random seed, from which candidate seeds derive.")
    seeds: Annotated[tuple[Seed, ...] | None, BeforeValidator(_sequence)] = Field(
        default=None,
        min_length=1,
        max_length=MAX_COUNT,
        description="Candidate seeds, instead of those that derive from the random seed.",
    )
    image_index: Whole = Field(
        default=0, ge=0, lt=MAX_COUNT, description="Index of the image of this prompt; seeds depend on it."
    )
    top_k: Whole = Field(default=1, ge=1, le=MAX_N, description="Number of best candidates to finish.")
    diverse: Real = Field(
        default=0.0,
        ge=0,
        le=_MAX_SCALE,
        description="Weight of the differences among the top-k beside their probabilities; 0.1 is a good start.",
    )
    refine_below: Real = Field(
        default=0.0,
        ge=0,
        le=1,
        description="Finish an image whose probability is below this value in one denoising step more.",
    )
    sampling: SamplingParams | None = Field(default=None, description="Sampling parameters (default: the generator's).")

    @model_validator(mode="after")
    def _refuse_contradictions(self) -> Self:
        if self.seeds is not None and self.n not in (None, len(self.seeds)):
            raise ValueError(f"n = {self.n} contradicts the {len(self.seeds)} seeds given: leave one out")
        if self.seeds is not None and "seed" in self.model_fields_set:
            raise ValueError(f"seeds are given, so seed = {self.seed} would change nothing: leave one out")
        return self

    @property
    def cap(self) -> int:
        """Largest number of candidates this search can generate."""
        return self.fixed_n or self.max_n

    def sampling_for(self, defaults: SamplingParams) -> SamplingParams:
        """Return the sampling parameters, completed by a generator's defaults."""
        return (self.sampling or SamplingParams()).with_defaults(defaults)

    @property
    def fixed_n(self) -> int | None:
        """Number of candidates asked for, given or by default; None where only `max_n` caps the search."""
        if self.seeds is not None:
            return len(self.seeds)
        is_open_ended = any(limit is not None for limit in (self.budget_ms, self.until, self.price))
        return self.n or (None if is_open_ended or self.max_n < DEFAULT_N else DEFAULT_N)

    @property
    def limits(self) -> dict[str, int | float]:
        """Options that can end this search, given or by default: with them, its policies are built again."""
        caps = {"n": self.fixed_n, "max_n": None if self.fixed_n else self.max_n}
        limits = {**caps, "budget_ms": self.budget_ms, "until": self.until, "price": self.price}
        return {name: limit for name, limit in limits.items() if limit is not None}


class ModelOptions(BaseModel):
    """Which models to load, and where and how they run."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    generator: str = Field(
        default="miniature",
        description="Generator: a name from `forejudge models`, a folder, or a hub id as owner/model or "
        "owner/model@revision. Generator options may follow, as in NAME,max_timesteps=1.5.",
    )
    verifier: str | None = Field(
        default=None, description="Verifier: a name, a folder or a hub id (default: the generator's own)."
    )
    verifier_step: Whole = Field(
        default=0, ge=0, lt=MAX_STEPS, description="Denoising step in which the verifier scores, counted from 0."
    )
    device: str | None = Field(
        default=None, description="Device: cpu, cuda, cuda:1, mps, ... (default: cuda, else mps, else cpu)."
    )
    dtype: Dtype = Field(
        default="auto",
        description="Floating-point type; auto is bfloat16 on NVIDIA GPUs from Ampere on, float32 elsewhere.",
    )
    batch_size: OptionalWhole = Field(
        default=None,
        ge=1,
        le=MAX_COUNT,
        description="Most candidates processed at once (default: what fits, up to 32).",
    )
    offload: Literal["text-encoder"] | None = Field(
        default=None,
        description="Keep the generator's text encoders on the CPU except while encoding: slower, saves GPU memory.",
    )
    compiled: bool = Field(
        default=False,
        description="Compile the models: the first candidates take up to a minute longer, all others less time.",
    )


def parse_options(options_class: type[AnyOptions], values: dict[str, Any]) -> AnyOptions:
    """Validate `values` as options. Raises InvalidRequest naming the option, its value and what is expected."""
    try:
        return options_class.model_validate(values)
    except ValidationError as error:
        raise InvalidRequest(validation_message(error)) from None


def check_count(name: str, value: object, minimum: int = 1, maximum: int = MAX_COUNT) -> int:
    """Return a count as an int. Raises InvalidRequest unless it is a whole number from `minimum` to `maximum`."""
    try:
        count = _whole(value)
    except ValueError as error:
        raise InvalidRequest(f"{name} = {value!r}: {error}") from None
    if not isinstance(count, int) or not minimum <= count <= maximum:
        raise InvalidRequest(f"{name} = {count}: expected a whole number from {minimum} to {maximum}")
    return count
