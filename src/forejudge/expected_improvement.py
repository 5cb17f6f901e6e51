"""Expected improvement: by how much further candidates of a prompt should raise the best calibrated probability.

The log-odds of candidates are calibrated: log(p / (1 - p)) of their probability p. Those of the next candidate are
taken as normal, with a mean between the prompt's own so far and a prior that is fitted on validation candidates.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

FloatArray = NDArray[np.float64]
_MAX_LOG_ODDS = 30.0  # beyond it a probability is 0 or 1 within 1e-13
_WIDEST = 8.0  # standard deviations
_NODES, _NODE_WEIGHTS = np.polynomial.legendre.leggauss(96)
_WEIGHTS = np.logspace(-2, 1.5, 36)
_MIN_DEVIATIONS = np.logspace(-1, 1, 41)


class Prior(BaseModel):
    """Distribution of a prompt's calibrated log-odds before its candidates are scored.

    Their mean is `mean`, as if `weight` candidates had been seen; they deviate by `min_deviation` at least.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    mean: float
    weight: float = Field(gt=0)
    min_deviation: float = Field(gt=0)


@dataclass(frozen=True)
class NextLogOdds:
    """Normal distribution of the calibrated log-odds of a further candidate."""

    mean: float
    deviation: float

    @classmethod
    def after(cls, probabilities: Sequence[float], prior: Prior) -> Self:
        """Predict from the probabilities of the candidates so far, of which there may be none."""
        seen = log_odds(probabilities)
        mean = (seen.sum() + prior.weight * prior.mean) / (len(seen) + prior.weight)
        sample_deviation = float(seen.std(ddof=1)) if len(seen) > 1 else 0.0
        return cls(float(mean), max(sample_deviation, prior.min_deviation))

    def improvement(self, best: float, count: int) -> float:
        """Return by how much the best of `count` further candidates is expected to exceed probability `best`.

        It is the integral, over the probabilities above `best`, of the chance that one of them is exceeded. Gauss and
        Legendre's rule errs by less than 1e-6.
        """
        reach, start = _WIDEST * self.deviation, float(log_odds([best])[0])
        low, high = max(start, min(self.mean - reach, _MAX_LOG_ODDS)), min(self.mean + reach, _MAX_LOG_ODDS)
        # All candidates exceed what lies below `low`.
        certain = max(float(_probability(np.array(low))) - best, 0.0) if low > start else 0.0
        half = max(high - low, 0.0) / 2
        x = low + half * (_NODES + 1)
        exceeded = 1 - np.array([_normal_cdf((each - self.mean) / self.deviation) for each in x]) ** count
        p = _probability(x)
        return certain + half * float(np.dot(_NODE_WEIGHTS, exceeded * p * (1 - p)))


def log_odds(probabilities: Iterable[float]) -> FloatArray:
    """Return the log-odds of probabilities, at most 30 to either side."""
    p = np.array(list(probabilities), dtype=np.float64)
    with np.errstate(divide="ignore"):
        unbounded = np.log(p) - np.log1p(-p)
    bounded: FloatArray = np.clip(unbounded, -_MAX_LOG_ODDS, _MAX_LOG_ODDS)
    return bounded


def fit_prior(probabilities: Iterable[Sequence[float]]) -> Prior:
    """Fit the prior on the calibrated probabilities of validation candidates, a sequence for each prompt.

    The mean is that over prompts. Weight and least deviation are those of a grid under which each candidate but the
    first is most likely after those before it.
    """
    prompts = [log_odds(each) for each in probabilities]
    mean = float(np.mean([seen.mean() for seen in prompts]))
    histories = [(seen[:n], seen[n]) for seen in prompts for n in range(1, len(seen))]
    count = np.array([len(before) for before, _ in histories])
    total = np.array([before.sum() for before, _ in histories])
    deviation = np.array([before.std(ddof=1) if len(before) > 1 else 0.0 for before, _ in histories])
    following = np.array([after for _, after in histories])

    def log_likelihood(weight: float, min_deviation: float) -> float:
        s = np.maximum(deviation, min_deviation)
        z = (following - (total + weight * mean) / (count + weight)) / s
        return float(-(np.log(s) + z**2 / 2).sum())

    pairs = [(float(weight), float(least)) for weight in _WEIGHTS for least in _MIN_DEVIATIONS]
    weight, min_deviation = max(pairs, key=lambda pair: log_likelihood(*pair))
    return Prior(mean=mean, weight=weight, min_deviation=min_deviation)


def _normal_cdf(z: float) -> float:
    return math.erfc(-z / math.sqrt(2)) / 2


def _probability(log_odds: FloatArray) -> FloatArray:
    probability: FloatArray = 1 / (1 + np.exp(-log_odds))
    return probability
