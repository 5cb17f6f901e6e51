"""Expected improvement: by how much further candidates of a prompt should raise the best calibrated probability.

The log-odds of candidates are calibrated: log(p / (1 - p)) of their probability p. Those of the next candidate are
taken as normal, with a mean between the prompt's own so far and a prior that is fitted on validation candidates.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from pydantic import BaseModel, ConfigDict, Field

FloatArray = NDArray[np.float64]
_MAX_LOG_ODDS = 30.0  # beyond it a probability is 0 or 1 within 1e-13
_WIDEST = 8.0  # standard deviations
_NODES, _NODE_WEIGHTS = np.polynomial.legendre.leggauss(96)
_Z = np.linspace(-_WIDEST, _WIDEST, 20_001)
_CDF = np.array([math.erfc(-z / math.sqrt(2)) / 2 for z in _Z])
_FITTED_CANDIDATES = 8
_WEIGHTS = (0.1, 0.2, 0.5, 1.0, 2.0, 5.0)
_MIN_DEVIATIONS = (0.2, 0.3, 0.5, 0.7, 1.0, 1.4, 2.0, 3.0)


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
        return cls.of(log_odds(probabilities), prior)

    @classmethod
    def of(cls, seen: FloatArray, prior: Prior) -> Self:
        """Predict from the calibrated log-odds of the candidates so far."""
        mean = (seen.sum() + prior.weight * prior.mean) / (len(seen) + prior.weight)
        sample_deviation = float(seen.std(ddof=1)) if len(seen) > 1 else 0.0
        return cls(float(mean), max(sample_deviation, prior.min_deviation))

    def improvement(self, best: float, count: int) -> float:
        """Return by how much the best of `count` further candidates is expected to exceed probability `best`."""
        return float(_improvement(np.array(self.mean), np.array(self.deviation), np.array(best), count))


def log_odds(probabilities: ArrayLike) -> FloatArray:
    """Return the log-odds of probabilities, at most 30 to either side."""
    p = np.asarray(probabilities, dtype=np.float64)
    with np.errstate(divide="ignore"):
        unbounded = np.log(p) - np.log1p(-p)
    bounded: FloatArray = np.clip(unbounded, -_MAX_LOG_ODDS, _MAX_LOG_ODDS)
    return bounded


def fit_prior(probabilities: Iterable[Sequence[float]]) -> Prior:
    """Fit the prior on the calibrated probabilities of validation candidates, a sequence for each prompt.

    The mean is that over prompts. Weight and least deviation are those of a grid that predict best, in squares, by how
    much each of the second to the eighth candidate improves on those before it.
    """
    prompts = [np.array(each, np.float64) for each in probabilities]
    mean = float(np.mean([log_odds(each).mean() for each in prompts]))
    histories = [(each[:n], each[n]) for each in prompts for n in range(1, min(len(each), _FITTED_CANDIDATES))]
    best = np.array([seen.max() for seen, _ in histories])
    improved = np.maximum(np.array([following for _, following in histories]) - best, 0)
    seen = [log_odds(before) for before, _ in histories]

    def squared_error(prior: Prior) -> float:
        predicted = [NextLogOdds.of(each, prior) for each in seen]
        means, deviations = (np.array([getattr(each, name) for each in predicted]) for name in ("mean", "deviation"))
        return float(((_improvement(means, deviations, best, 1) - improved) ** 2).sum())

    grid = [Prior(mean=mean, weight=w, min_deviation=s) for w in _WEIGHTS for s in _MIN_DEVIATIONS]
    return min(grid, key=squared_error)


def _improvement(mean_M: FloatArray, deviation_M: FloatArray, best_M: FloatArray, count: int) -> FloatArray:
    """Return the expected improvement for each of M predictions.

    It is the integral, over the probabilities above `best`, of the chance that one candidate exceeds them. The rule of
    Gauss and Legendre errs by less than 1e-6.
    """
    reach, start = _WIDEST * deviation_M, log_odds(best_M)
    low = np.maximum(start, np.minimum(mean_M - reach, _MAX_LOG_ODDS))
    half = np.maximum(np.minimum(mean_M + reach, _MAX_LOG_ODDS) - low, 0) / 2
    x = low[..., None] + half[..., None] * (_NODES + 1)
    z = (x - mean_M[..., None]) / deviation_M[..., None]
    p = _probability(x)
    above_low = half * (((1 - _normal_cdf(z) ** count) * p * (1 - p)) @ _NODE_WEIGHTS)
    # All candidates exceed what lies below `low`.
    improvement: FloatArray = above_low + np.where(low > start, np.maximum(_probability(low) - best_M, 0), 0)
    return improvement


def _normal_cdf(z: FloatArray) -> FloatArray:
    cdf: FloatArray = np.interp(z, _Z, _CDF)  # within 1e-7
    return cdf


def _probability(log_odds: FloatArray) -> FloatArray:
    probability: FloatArray = 1 / (1 + np.exp(-log_odds))
    return probability
