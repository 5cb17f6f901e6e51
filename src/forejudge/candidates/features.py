"""What a verifier reads of labelled candidates, row by row: recorded on disk, or computed anew from their seeds.

Both round to half precision, so that training on either goes the same way.
"""

from abc import ABC, abstractmethod
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor

from forejudge.candidates.store import CandidateStore
from forejudge.errors import CheckpointError
from forejudge.generators.base import Generator
from forejudge.verifiers.inputs import VerifierInput

# FOLDED: Mean and variance of each channel in one streamed pass (Welford's update, in batches: Chan et al. 1983).


def channel_statistics(batches: Iterable[Tensor]) -> tuple[Tensor, Tensor]:
    """Mean and population variance over all but the last axis: two tensors (D,) in float32."""
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


_PROMPTS_KEPT = 1024  # encoded, of the last ones asked for


class States(ABC):
    """Tokens of rows, on the CPU."""

    @abstractmethod
    def tokens(self, rows: Sequence[int]) -> Tensor:
        """(N, T, D) in half precision, in the order of `rows`."""

    def batches(self, rows: Sequence[int], size: int = 64) -> Iterator[Tensor]:
        """Many rows, `size` at a time, in float32."""
        for first in range(0, len(rows), size):
            yield self.tokens(rows[first : first + size]).float()


class RecordedStates(States):
    """States that were stored when the rows were drawn. Raises CheckpointError where they were not."""

    def __init__(self, folder: CandidateStore, reading: str) -> None:
        if reading not in folder.settings.recorded:
            raise CheckpointError(
                f"{folder.folder} holds no states of {reading}, only {', '.join(folder.settings.recorded) or 'none'}"
            )
        self.folder, self.reading = folder, reading
        self._slices = lru_cache(maxsize=None)(self._open)

    def tokens(self, rows: Sequence[int]) -> Tensor:
        """See `States.tokens`."""
        places = [self.folder.block_of(row) for row in rows]
        return torch.cat([self._slices(block)[place : place + 1] for block, place in places])

    def _open(self, block: int) -> Any:
        return safe_open(self.folder.states_path(block), "pt").get_slice(self.reading)


class RecomputedStates(States):
    """States drawn anew from (prompt, seed), one prompt after the other."""

    def __init__(
        self, generator: Generator, reading: VerifierInput, prompts: Sequence[str], seeds: Sequence[int]
    ) -> None:
        self.generator, self.reading = generator, reading
        self.prompts, self.seeds = prompts, seeds
        self._conditioning = lru_cache(maxsize=_PROMPTS_KEPT)(self._encode)

    def tokens(self, rows: Sequence[int]) -> Tensor:
        """See `States.tokens`."""
        places: defaultdict[str, list[int]] = defaultdict(list)
        for place, row in enumerate(rows):
            places[self.prompts[row]].append(place)
        found: list[Tensor] = [torch.empty(0)] * len(rows)
        for prompt, members in places.items():
            tokens_NTD = self._draw(prompt, tuple(self.seeds[rows[place]] for place in members))
            for place, tokens_TD in zip(members, tokens_NTD, strict=True):
                found[place] = tokens_TD
        return torch.stack(found)

    def _draw(self, prompt: str, seeds: tuple[int, ...]) -> Tensor:
        candidates = self.generator.start(self._conditioning(prompt), seeds)
        candidates = self.generator.advance(candidates, [self.reading.stage])
        return half(self.reading.tokens(candidates))

    def _encode(self, prompt: str) -> Any:
        return self.generator.encode_without_padding(prompt, self.generator.defaults)


def half(tokens_NTD: Tensor) -> Tensor:
    """Rounded for storage, on the CPU: bfloat16 stays, all else becomes float16.

    Raises CheckpointError where float16 does not hold the values.
    """
    rounded = tokens_NTD.to("cpu", torch.bfloat16 if tokens_NTD.dtype == torch.bfloat16 else torch.float16)
    if not rounded.isfinite().all():
        raise CheckpointError("states are beyond float16's range: run the generator in bfloat16")
    return rounded
