"""Diverse winners: candidates that are likely right and differ from each other, by their pooled hidden states.

Shapes: N candidates of one search, D width of their hidden states.
"""

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]
_EPSILON = 1e-12


def diverse_order(
    order: Sequence[int], probability_N: Sequence[float], pooled_ND: FloatArray, weight: float
) -> Iterator[int]:
    """Yield the candidates of `order`, each the one that adds most to those before it; ties go by `order`.

    A candidate adds its probability, and `weight` times the sum of its distances to those before it.
    """
    distance_NN = cosine_distances(pooled_ND)
    gain_N, left = np.array(probability_N, np.float64), list(order)
    while left:
        best = max(left, key=gain_N.__getitem__)
        left.remove(best)
        gain_N += weight * distance_NN[best]
        yield best


def cosine_distances(pooled_ND: FloatArray) -> FloatArray:
    """Return the cosine distances (N, N) in [0, 2] of states, each channel standardized over the candidates.

    States that equal the mean, such as that of a single candidate, are at distance 1 from all others.
    """
    centered_ND = pooled_ND - pooled_ND.mean(axis=0)
    standard_ND = centered_ND / np.maximum(centered_ND.std(axis=0), _EPSILON)
    unit_ND = standard_ND / np.maximum(np.linalg.norm(standard_ND, axis=1, keepdims=True), _EPSILON)
    distance_NN: FloatArray = 1 - unit_ND @ unit_ND.T
    return distance_NN
