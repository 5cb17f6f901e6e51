"""What a verifier says of itself in its folder's verifier.json: what it reads, of which generator, and how it asks."""

import math
from collections.abc import Iterator, Sequence
from typing import Annotated, Any

import torch
import torch.nn.functional as F
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, JsonValue, PositiveInt

from forejudge.errors import MismatchError
from forejudge.generators.base import Architecture, Generator
from forejudge.verifiers.connector import Connector, StatisticsKind
from forejudge.verifiers.inputs import VerifierInput, VerifierInputName
from forejudge.verifiers.question import PUBLISHED_QUESTION, check_question

# FOLDED: From log-odds to a probability one can rely on: a temperature and a bias, fitted on validation prompts.


class Calibration(BaseModel):
    """probability = sigmoid(log_odds / temperature + bias) (Platt 1999)."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    temperature: float = Field(gt=0)
    bias: float

    def probability(self, log_odds: float) -> float:
        """In (0, 1)."""
        return 1 / (1 + math.exp(-max(min(log_odds / self.temperature + self.bias, 60), -60)))


def fit_calibration(log_odds: Sequence[float], correct: Sequence[bool]) -> Calibration:
    """The temperature and bias of highest likelihood; both outcomes must occur."""
    assert len(set(correct)) == 2, "calibration needs both right and wrong candidates"
    x, y = torch.tensor(log_odds, dtype=torch.float64), torch.tensor(correct, dtype=torch.float64)
    scale = x.std().clamp(min=1e-6)
    parameters = torch.zeros(2, dtype=torch.float64, requires_grad=True)  # log slope on x / scale, bias
    optimizer = torch.optim.LBFGS([parameters], max_iter=200, line_search_fn="strong_wolfe")

    def loss() -> torch.Tensor:
        optimizer.zero_grad()
        value = F.binary_cross_entropy_with_logits(parameters[0].exp() * x / scale + parameters[1], y)
        value.backward()
        return value

    optimizer.step(loss)
    log_slope, bias = parameters.tolist()
    return Calibration(temperature=float(scale) / math.exp(log_slope), bias=bias)


CONFIG_FILE = "verifier.json"


class VerifierConfig(BaseModel):
    """What a verifier reads (see `build_verifier_input`), of which generator, and how it asks.

    `generator_source` is the commit that was read, as `owner/model@COMMIT`, where the generator came from the hub. With
    `has_head` its score is a number from a head, trained by regression, and not the log-odds of yes. For
    `spatial_merge_size`, and for `statistics` of so many `tokens`, see `Connector`.

    Of a verifier that others published, `published_config` is what its config.json said. It may not be known of which
    generator it is, then `width` says what it reads, nor on which weights of that it was trained: None.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    generator: Architecture | None
    generator_fingerprint: str | None
    generator_source: str | None = None
    reads: VerifierInputName
    question: Annotated[str, AfterValidator(check_question)] = PUBLISHED_QUESTION
    spatial_merge_size: PositiveInt = 1
    statistics: StatisticsKind = "channel"
    tokens: PositiveInt | None = None
    width: PositiveInt | None = None
    has_head: bool = False
    calibration: Calibration | None = None
    published_config: dict[str, JsonValue] | None = None

    @classmethod
    def from_generator(cls, generator: Generator, reads: str, **fields: Any) -> "VerifierConfig":
        """For a generator at hand."""
        return cls(
            generator=generator.architecture,
            generator_fingerprint=generator.fingerprint,
            generator_source=_generator_commit(generator),
            reads=reads,
            **fields,
        )

    def new_connector(self, verifier_input: VerifierInput, embedding_width: int) -> Connector:
        """Untrained, for the tokens of a reading. Raises MismatchError where the generator has no such stage."""
        width = self.width if self.generator is None else verifier_input.width(self.generator)
        assert width is not None, "a verifier of no known generator says its width"
        return Connector(width, embedding_width, self.spatial_merge_size, self.statistics, self.tokens or 1)

    def check(self, generator: Generator, verifier: str) -> None:
        """Raises MismatchError, naming both values, for a generator of another architecture."""
        for field in Architecture.model_fields if self.generator else ():
            expected, actual = getattr(self.generator, field), getattr(generator.architecture, field)
            if expected != actual:
                raise MismatchError(
                    f"verifier {verifier} reads a generator with {field} = {expected}, but {generator.name} has "
                    f"{field} = {actual}: use the verifier that was trained for it"
                )

    def mismatch_warnings(self, generator: Generator, verifier: str) -> Iterator[str]:
        """Warnings about a generator of other weights than those it was trained on."""
        fingerprint, source = self.generator_fingerprint, self.generator_source
        if fingerprint not in (None, generator.fingerprint):
            yield (
                f"verifier {verifier} was trained on weights {fingerprint}, {generator.name} has "
                f"{generator.fingerprint}: its verdicts may not hold"
            )
        commit = _generator_commit(generator)
        if source and commit and source != commit:
            yield f"verifier {verifier} was trained on {source}, this is {commit}: its verdicts may not hold"


def _generator_commit(generator: Generator) -> str | None:
    """Of the repository that its transformer came from; None for a folder, and for a pipeline that was given."""
    weights = generator.sources[-1] if generator.sources else None
    return str(weights) if weights and weights.commit else None
