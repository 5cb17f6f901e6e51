"""Options that a caller sets. The library, the command line and a server share these models.

Every option is declared here once: its name, type, range, default and description. `forejudge generate` derives its
command-line options from the fields, and `BestOfN` takes them as keyword arguments.
"""

from typing import Annotated, Any, Literal, Self, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from forejudge.errors import InvalidRequest, validation_message

DEFAULT_N = 8
MAX_SEED = 2**32 - 1

Seed = Annotated[int, Field(ge=0, le=MAX_SEED)]
Dtype = Literal["auto", "float32", "bfloat16", "float16"]
AnyOptions = TypeVar("AnyOptions", bound=BaseModel)


class SamplingParams(BaseModel):
    """How an image is generated. In a search, fields that were not set come from the generator's defaults."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    steps: int = Field(default=1, ge=1, le=64, description="Denoising steps (default: the generator's own, mostly 1).")
    guidance_scale: float | None = Field(
        default=None, ge=0, description="Strength of prompt guidance (default: the generator's own)."
    )
    height: int | None = Field(default=None, ge=1, description="Height in pixels (default: the generator's own).")
    width: int | None = Field(default=None, ge=1, description="Width in pixels (default: the generator's own).")
    lora_scale: float = Field(default=1.0, description="Weight of the pipeline's LoRA adapters.")

    def with_defaults(self, defaults: Self) -> Self:
        """Take the fields that were not set from `defaults`."""
        return defaults.model_copy(update=self.model_dump(include=self.model_fields_set))


class SearchOptions(BaseModel):
    """Options of one search: the candidates, when to stop, and which candidates to finish.

    The search stops after `n` candidates, before `budget_ms` have passed, or at the first candidate whose calibrated
    probability reaches `until`, whichever comes first. Without `n`, `max_n` caps the other two; without any of the
    three, `n` is 8, or `max_n` if that is less.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    n: int | None = Field(default=None, ge=1, description=f"Number of candidates (default: {DEFAULT_N}).")
    budget_ms: float | None = Field(
        default=None,
        gt=0,
        description="Time budget in milliseconds, from the prompt to the finished images; as many candidates as fit.",
    )
    until: float | None = Field(
        default=None, gt=0, le=1, description="Stop at the first candidate whose probability reaches this value."
    )
    max_n: int = Field(default=64, ge=1, description="Most candidates if a budget or a probability ends the search.")
    seed: int = Field(default=0, description="Random seed, from which candidate seeds derive.")
    seeds: tuple[Seed, ...] | None = Field(
        default=None, min_length=1, description="Candidate seeds, instead of those that derive from the random seed."
    )
    image_index: int = Field(default=0, ge=0, description="Index of the image of this prompt; seeds depend on it.")
    top_k: int = Field(default=1, ge=1, description="Number of best candidates to finish.")
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

    @property
    def fixed_n(self) -> int | None:
        """Number of candidates asked for, given or by default; None where only `max_n` caps the search."""
        if self.seeds is not None:
            return len(self.seeds)
        is_open_ended = self.budget_ms is not None or self.until is not None
        return self.n or (None if is_open_ended or self.max_n < DEFAULT_N else DEFAULT_N)


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
    verifier_step: int = Field(
        default=0, ge=0, description="Denoising step in which the verifier scores, counted from 0."
    )
    device: str | None = Field(
        default=None, description="Device: cpu, cuda, cuda:1, mps, ... (default: cuda, else mps, else cpu)."
    )
    dtype: Dtype = Field(
        default="auto",
        description="Floating-point type; auto is bfloat16 on NVIDIA GPUs from Ampere on, float32 elsewhere.",
    )
    batch_size: int | None = Field(
        default=None, ge=1, description="Most candidates processed at once (default: what fits, up to 32)."
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
