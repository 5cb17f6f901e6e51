"""Hidden states and other verifier inputs of stored candidates: recorded on disk, derived from others that are, or
recomputed from their seeds.

All are rounded to half precision, so that training on any goes the same way.
"""

from abc import ABC, abstractmethod
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property, lru_cache
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor

from forejudge.candidates.store import CandidateStore
from forejudge.errors import CheckpointError
from forejudge.generators.base import Generator
from forejudge.types import Candidates, Grid
from forejudge.verifiers.inputs import VerifierInput

_MAX_CACHED_PROMPTS = 1024  # encoded


class States(ABC):
    """Tokens of a verifier input for each row of a store, on the CPU."""

    @abstractmethod
    def tokens(self, rows: Sequence[int]) -> Tensor:
        """Return tokens (N, T, D) in half precision, in the order of `rows`."""

    @property
    def grid(self) -> Grid | None:
        """Grid of the T tokens of every row; None stands for a square."""
        return None

    def batches(self, rows: Sequence[int], size: int = 64) -> Iterator[Tensor]:
        """Yield the tokens of `size` rows at a time, in float32."""
        for first in range(0, len(rows), size):
            yield self.tokens(rows[first : first + size]).float()


class RecordedStates(States):
    """States recorded when the rows were generated.

    Raises CheckpointError where they were not recorded, are missing or have changed: a shard's checksum is compared
    when it is first opened, which takes a third to a half of the time of reading all its rows once.
    """

    def __init__(self, store: CandidateStore, input_name: str) -> None:
        if input_name not in store.settings.recorded:
            raise CheckpointError(
                f"{store.path} holds no states of {input_name}, only {', '.join(store.settings.recorded) or 'none'}"
            )
        self.store, self.input_name = store, input_name
        self._slices = lru_cache(maxsize=None)(self._open)

    def tokens(self, rows: Sequence[int]) -> Tensor:
        """See `States.tokens`."""
        places = [self.store.block_of(row) for row in rows]
        return torch.cat([self._slices(block)[index : index + 1] for block, index in places])

    @cached_property
    def grid(self) -> Grid | None:
        """See `States.grid`."""
        return self.store.recorded_grids(0).get(self.input_name)

    def _open(self, block: int) -> Any:
        self.store.check_states(block)
        return safe_open(self.store.states_path(block), "pt").get_slice(self.input_name)


class DerivedStates(States):
    """States computed each time from recorded ones, without a generator: those of the input `derived_from`."""

    def __init__(self, recorded: States, verifier_input: VerifierInput) -> None:
        self.recorded, self.verifier_input = recorded, verifier_input

    def tokens(self, rows: Sequence[int]) -> Tensor:
        """See `States.tokens`."""
        return half(self.verifier_input.derive(self.recorded.tokens(rows), self.recorded.grid))


class RecomputedStates(States):
    """States recomputed from (prompt, seed), one prompt after the other."""

    def __init__(
        self, generator: Generator, verifier_input: VerifierInput, prompts: Sequence[str], seeds: Sequence[int]
    ) -> None:
        self.generator, self.verifier_input = generator, verifier_input
        self.prompts, self.seeds = prompts, seeds
        self._conditioning = lru_cache(maxsize=_MAX_CACHED_PROMPTS)(self._encode)

    def tokens(self, rows: Sequence[int]) -> Tensor:
        """See `States.tokens`."""
        places: defaultdict[str, list[int]] = defaultdict(list)
        for place, row in enumerate(rows):
            places[self.prompts[row]].append(place)
        found: list[Tensor] = [torch.empty(0)] * len(rows)
        for prompt, members in places.items():
            tokens_NTD = self._generate(prompt, tuple(self.seeds[rows[place]] for place in members))
            for place, tokens_TD in zip(members, tokens_NTD, strict=True):
                found[place] = tokens_TD
        return torch.stack(found)

    @cached_property
    def grid(self) -> Grid | None:
        """See `States.grid`."""
        return self.verifier_input.grid(self._candidates(self.prompts[0], (self.seeds[0],)))

    def _generate(self, prompt: str, seeds: tuple[int, ...]) -> Tensor:
        return half(self.verifier_input.tokens(self._candidates(prompt, seeds)))

    def _candidates(self, prompt: str, seeds: tuple[int, ...]) -> Candidates:
        candidates = self.generator.start(self._conditioning(prompt), seeds)
        return self.generator.advance(candidates, [self.verifier_input.stage])

    def _encode(self, prompt: str) -> Any:
        return self.generator.encode_without_padding(prompt, self.generator.defaults)


def half(tokens_NTD: Tensor) -> Tensor:
    """Round tokens for storage, on the CPU: bfloat16 stays, every other dtype becomes float16.

    Raises CheckpointError for values beyond float16's range.
    """
    rounded = tokens_NTD.to("cpu", torch.bfloat16 if tokens_NTD.dtype == torch.bfloat16 else torch.float16)
    if not rounded.isfinite().all():
        raise CheckpointError("states are beyond float16's range: run the generator in bfloat16")
    return rounded


def channel_statistics(batches: Iterable[Tensor]) -> tuple[Tensor, Tensor]:
    """Return mean and population variance over all axes but the last: two tensors (D,) in float32.

    Computed in one streamed pass (Welford's update in batches: Chan et al., 1983). Raises ValueError without batches.
    """
    count, mean, squares = 0, torch.zeros(()), torch.zeros(())
    for batch in batches:
        rows_MD = batch.flatten(0, -2).double()
        batch_mean = rows_MD.mean(0)
        shift = batch_mean - mean
        total = count + len(rows_MD)
        squares = squares + (rows_MD - batch_mean).square().sum(0) + shift.square() * count * len(rows_MD) / total
        mean = mean + shift * len(rows_MD) / total
        count = total
    if count == 0:
        raise ValueError("statistics need at least one batch of hidden states")
    return mean.float(), (squares / count).float()
