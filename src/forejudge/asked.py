"""What one search is asked for, checked: a prompt, limits, seeds, and how candidates are drawn."""

from collections.abc import Sequence
from dataclasses import dataclass

from forejudge.budget import DEFAULT_MAX_N, Limits
from forejudge.errors import InvalidRequest
from forejudge.generators.base import Sampling
from forejudge.noise import LARGEST_SEED, candidate_seed


@dataclass(frozen=True)
class Asked:
    """`seeds` are those of all candidates there may be; `seed` is what they follow from, None if they were given."""

    prompt: str
    limits: Limits
    seeds: tuple[int, ...]
    seed: int | None
    image_index: int
    top_k: int
    sampling: Sampling

    @classmethod
    def of(
        cls,
        prompt: str,
        n: int | None,
        *,
        seed: int,
        seeds: Sequence[int] | None,
        image_index: int,
        budget_ms: float | None,
        until: float | None,
        max_n: int | None,
        top_k: int,
        sampling: Sampling,
    ) -> "Asked":
        """See `BestOfN.__call__`. Raises InvalidRequest for what no search can do."""
        if seeds is not None:
            n = _number_of(seeds, n)
        limits = Limits(n, budget_ms, until, DEFAULT_MAX_N if max_n is None else max_n)
        if top_k < 1:
            raise InvalidRequest(f"top_k = {top_k} finishes nothing: it must be at least 1")
        if seeds is not None:
            return cls(prompt, limits, tuple(seeds), None, image_index, top_k, sampling)
        following = tuple(candidate_seed(seed, prompt, image_index, index) for index in range(limits.cap))
        return cls(prompt, limits, following, seed, image_index, top_k, sampling)


def _number_of(seeds: Sequence[int], n: int | None) -> int:
    """Raises InvalidRequest where there are not `n`, or one cannot be a seed."""
    if not seeds or not all(0 <= seed <= LARGEST_SEED for seed in seeds):
        raise InvalidRequest(f"seeds must be one or more numbers from 0 to {LARGEST_SEED}")
    if n is not None and n != len(seeds):
        raise InvalidRequest(f"n = {n} contradicts the {len(seeds)} seeds given: leave one out")
    return len(seeds)
