"""Mixtures of two settings of a policy: taken at random, they cost any mean between those of both."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from forejudge.evaluation.metrics import FloatArray
from forejudge.evaluation.report import CandidateCounts

_TOLERANCE = 1e-9  # of a cost, which sums of the same numbers may miss


def mixture(costs: FloatArray, cost: float) -> list[tuple[int, float]]:
    """Return the settings that cost `cost` on average, each with its share: one or two neighbors.

    `costs` of settings do not fall; beyond their ends the nearest setting is taken alone.
    """
    last = len(costs) - 1
    below = max(int(np.searchsorted(costs, cost * (1 + _TOLERANCE), side="right")) - 1, 0)
    if below == last or cost <= costs[below] * (1 + _TOLERANCE):
        return [(below, 1.0)]
    share = float((cost - costs[below]) / (costs[below + 1] - costs[below]))
    return [(below, 1 - share), (below + 1, share)]


def candidate_counts(mixed: Sequence[tuple[NDArray[np.intp], float]]) -> CandidateCounts:
    """Describe the numbers of candidates of the searches of each setting, which have their share."""
    used = np.concatenate([numbers.ravel() for numbers, _ in mixed])
    weights = np.concatenate([np.full(numbers.size, share / numbers.size) for numbers, share in mixed])
    p50, p90, p99 = np.quantile(used, [0.5, 0.9, 0.99], weights=weights, method="inverted_cdf")
    return CandidateCounts(mean=round(float(used @ weights), 4), p50=float(p50), p90=float(p90), p99=float(p99))
