"""Seeds and noise as pure functions: batch size, order and interruption change nothing."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, overload

import torch
from torch import Tensor

from forejudge.errors import InvalidRequest

Split = Literal["training", "validation", "test"]


def split_seed(split: Split, seed: int) -> int:
    """Derive the run seed of a split, in [0, 2**32): equal seeds never give equal candidates in two splits."""
    return int.from_bytes(hashlib.sha256(f"run seed|{split}|{seed}".encode()).digest()[:8], "big") % 2**32


def candidate_seed(run_seed: int, prompt: str, image_index: int, candidate_index: int) -> int:
    """Derive the seed of one candidate, in [0, 2**32); the prompt enters without outer white space."""
    text = encode_text(f"{run_seed}|{prompt.strip()}|{image_index}|{candidate_index}")
    return int.from_bytes(hashlib.sha256(text).digest()[:4], "big")


@dataclass(frozen=True)
class CandidateSeeds(Sequence[int]):
    """Seeds of the first `num_candidates` candidates of an image, each derived when it is needed."""

    run_seed: int
    prompt: str
    image_index: int
    num_candidates: int

    def __len__(self) -> int:
        return self.num_candidates

    @overload
    def __getitem__(self, index: int) -> int: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[int, ...]: ...
    def __getitem__(self, index: int | slice) -> int | tuple[int, ...]:
        """Derive one seed, or those of a slice."""
        chosen = range(self.num_candidates)[index]
        if isinstance(chosen, int):
            return candidate_seed(self.run_seed, self.prompt, self.image_index, chosen)
        return tuple(candidate_seed(self.run_seed, self.prompt, self.image_index, each) for each in chosen)


def encode_text(text: str) -> bytes:
    """Encode text as UTF-8. Raises InvalidRequest for half of a surrogate pair, which no model can read."""
    try:
        return text.encode()
    except UnicodeEncodeError as error:
        raise InvalidRequest(
            f"the prompt has the character {text[error.start]!r}, half of a pair: expected Unicode text in UTF-8"
        ) from None


def noise_generator(
    seed: int, num_draws: int, shape: tuple[int, ...], dtype: torch.dtype = torch.float32
) -> torch.Generator:
    """Return `torch.Generator().manual_seed(seed)` advanced by `num_draws` draws of noise (1, *shape)."""
    generator = torch.Generator().manual_seed(seed)
    for _ in range(num_draws):
        torch.randn(1, *shape, generator=generator, dtype=dtype)
    return generator


def noise(seed: int, draw: int, shape: tuple[int, ...], dtype: torch.dtype = torch.float32) -> Tensor:
    """Return standard normal noise (1, *shape) on the CPU, drawn in `dtype`.

    Another dtype may give other noise: in float16 and bfloat16 the size decides whether it is that of float32, rounded.
    Draw 0 is the initial latent, draw s the noise of the s-th further step: what diffusers takes, one after the other,
    from `torch.Generator().manual_seed(seed)`, so that the reference pipeline reproduces the image.
    """
    return torch.randn(1, *shape, generator=noise_generator(seed, draw, shape, dtype), dtype=dtype)


def noise_batch(
    seeds: tuple[int, ...], draw: int, shape: tuple[int, ...], dtype: torch.dtype = torch.float32
) -> Tensor:
    """Return the noise of several seeds, (N, *shape)."""
    return torch.cat([noise(seed, draw, shape, dtype) for seed in seeds])
