"""Fields of verifier.json that every class of verifier has: its input, the generator it was made for, calibration."""

import math
from collections.abc import Iterator, Sequence
from typing import Any, Self

import torch
import torch.nn.functional as F
from pydantic import BaseModel, ConfigDict, Field

from forejudge.errors import MismatchError
from forejudge.expected_improvement import Prior
from forejudge.generators.base import Architecture, Dimension, Generator
from forejudge.verifiers.inputs import VerifierInput, VerifierInputName

CONFIG_FILE = "verifier.json"
_MAX_LOGIT = 60  # beyond it the probability is 0 or 1 in float64, and exp would overflow


class Calibration(BaseModel):
    """Map from log-odds to a probability: sigmoid(log_odds / temperature + bias) (Platt 1999)."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    temperature: float = Field(gt=0)
    bias: float

    def probability(self, log_odds: float) -> float:
        """Return the calibrated probability, in (0, 1)."""
        logit = log_odds / self.temperature + self.bias
        return 1 / (1 + math.exp(-max(min(logit, _MAX_LOGIT), -_MAX_LOGIT)))


def fit_calibration(log_odds: Sequence[float], correct: Sequence[bool]) -> Calibration:
    """Fit temperature and bias by maximum likelihood on validation candidates; both outcomes must occur."""
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


class VerifierConfig(BaseModel):
    """Fields of verifier.json that do not depend on the class of verifier; a class adds its own in a subclass.

    `kind` is the verifier's row in VERIFIER_CLASSES, `reads` the name of its input. `generator_source` is the commit
    of the generator it was trained on, as `owner/model@COMMIT`, if that came from the hub. `prior` is that of the
    calibrated log-odds, which a search with a price needs.

    A published verifier does not name its generator: `generator` is None if it is unknown, and `width` is then the
    width of a token. The fingerprint of its generator's weights is never known.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    kind: str
    generator: Architecture | None
    generator_fingerprint: str | None
    generator_source: str | None = None
    reads: VerifierInputName
    width: Dimension | None = None
    calibration: Calibration | None = None
    prior: Prior | None = None

    @classmethod
    def from_generator(cls, generator: Generator, reads: str, **fields: Any) -> Self:
        """Describe a verifier made for a loaded generator."""
        return cls(
            generator=generator.architecture,
            generator_fingerprint=generator.fingerprint,
            generator_source=_generator_commit(generator),
            reads=reads,
            **fields,
        )

    def input_width(self, verifier_input: VerifierInput) -> int:
        """Return the width D of a token. Raises MismatchError if the generator has no such stage."""
        width = self.width if self.generator is None else verifier_input.width(self.generator)
        assert width is not None, "a verifier of an unknown generator records its width"
        return width

    def check(self, architecture: Architecture, generator: str, verifier: str) -> None:
        """Raise MismatchError, naming both values, for a generator of another architecture."""
        for field in Architecture.model_fields if self.generator else ():
            expected, actual = getattr(self.generator, field), getattr(architecture, field)
            if expected != actual:
                raise MismatchError(
                    f"verifier {verifier} reads a generator with {field} = {expected}, but {generator} has "
                    f"{field} = {actual}: use the verifier that was trained for it"
                )

    def mismatch_warnings(self, generator: Generator, verifier: str) -> Iterator[str]:
        """Yield a warning for each sign that the generator's weights are not those the verifier was trained on."""
        fingerprint, source = self.generator_fingerprint, self.generator_source
        if fingerprint not in (None, generator.fingerprint):
            yield (
                f"verifier {verifier} was trained on a generator with digest {fingerprint}, {generator.name} has "
                f"{generator.fingerprint}: other weights, adapters or options, so its verdicts may not hold"
            )
        commit = _generator_commit(generator)
        if source and commit and source != commit:
            yield f"verifier {verifier} was trained on {source}, this is {commit}: its verdicts may not hold"


def _generator_commit(generator: Generator) -> str | None:
    """Return the commit of the transformer's repository; None for a folder or a pipeline passed in."""
    weights = generator.sources[-1] if generator.sources else None
    return str(weights) if weights and weights.commit else None
