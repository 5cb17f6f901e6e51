"""What the user asked for. An option that was not given is None, and the library's default holds."""

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from forejudge.budget import Limits
from forejudge.cli.compiled_cache import keep_compiled
from forejudge.cli.tables import show_warnings
from forejudge.errors import InvalidRequest

if TYPE_CHECKING:
    from forejudge import BestOfN, Result, Sampling
    from forejudge.search import OnProgress


def given(options: dict[str, Any]) -> dict[str, Any]:
    """The options that were given."""
    return {name: value for name, value in options.items() if value is not None}


@dataclass(frozen=True)
class ModelOptions:
    """Which models, and where they run: arguments of `BestOfN.from_pretrained`."""

    generator: str | None
    verifier: str | None
    device: str | None
    dtype: str | None
    batch_size: int | None
    judge_step: int | None
    offload: str | None
    compiled: bool

    def load(self) -> "BestOfN":
        """Load both."""
        from forejudge import BestOfN

        if self.compiled:
            keep_compiled()
        return BestOfN.from_pretrained(**given(vars(self)))


@dataclass(frozen=True)
class SamplingOptions:
    """How a candidate is drawn: fields of `Sampling`."""

    steps: int | None
    guidance_scale: float | None
    height: int | None
    width: int | None
    lora_scale: float | None

    def build(self, defaults: "Sampling | None" = None) -> "Sampling":
        """What was given, the rest as in `defaults`. Raises InvalidRequest naming an option that cannot be."""
        from pydantic import ValidationError

        from forejudge import Sampling

        try:
            return Sampling(**((defaults or Sampling()).model_dump() | given(vars(self))))
        except ValidationError as error:
            wrong = error.errors()[0]
            raise InvalidRequest(f"{wrong['loc'][0]} = {wrong['input']}: {wrong['msg']}") from None


@dataclass(frozen=True)
class SearchOptions:
    """How many candidates, and which: arguments of a call of `BestOfN`."""

    n: int | None
    budget_ms: float | None
    until: float | None
    max_n: int | None
    seed: int | None
    seeds: tuple[int, ...] | None
    top_k: int | None

    def limits(self) -> Limits:
        """When the search ends. Raises InvalidRequest."""
        n = len(self.seeds) if self.seeds else self.n
        return Limits(n, self.budget_ms, self.until, **given({"max_n": self.max_n}))


@dataclass(frozen=True)
class Request:
    """All of it, but for prompts and output."""

    models: ModelOptions
    sampling: SamplingOptions
    search: SearchOptions
    images_per_prompt: int
    everything: bool  # finish every candidate

    def check(self) -> None:
        """Refuse, before anything is loaded, what no search can do. Raises InvalidRequest."""
        self.search.limits()
        if self.images_per_prompt < 1:
            raise InvalidRequest(f"images-per-prompt = {self.images_per_prompt} draws nothing: it must be at least 1")
        if self.search.seeds and self.images_per_prompt > 1:
            raise InvalidRequest("seeds stand for one image, images-per-prompt for several: leave one out")
        if self.search.seeds and self.search.seed is not None:
            raise InvalidRequest("the candidates' seeds are given, so seed would change nothing: leave one out")
        if self.everything and self.search.top_k is not None:
            raise InvalidRequest("all finishes every candidate and top-k only the best: leave one out")

    def load(self) -> "BestOfN":
        """The models, once all else is known to be right."""
        self.sampling.build()
        return self.models.load()

    def run(self, best: "BestOfN", prompt: str, image_index: int, on_progress: "OnProgress | None" = None) -> "Result":
        """One best of N; what it had to do without is told once."""
        search = replace(self.search, top_k=self.search.limits().cap) if self.everything else self.search
        told = len(best.warnings)
        result = best(
            prompt,
            **given(vars(search)),
            image_index=image_index,
            sampling=self.sampling.build(best.generator.defaults),
            on_progress=on_progress,
        )
        show_warnings(best.warnings[told:])
        return result


def parse_seeds(text: str | None) -> tuple[int, ...] | None:
    """Seeds with commas between. Raises InvalidRequest; which numbers can be seeds is the library's affair."""
    if text is None:
        return None
    try:
        return tuple(int(seed) for seed in text.split(","))
    except ValueError:
        raise InvalidRequest(f"seeds = {text!r}: expected numbers with commas between, such as 3,14,15") from None
