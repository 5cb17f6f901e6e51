"""Seeds and the noise they stand for. Pure functions: batch size, order and interruption change nothing."""

import hashlib

import torch
from torch import Tensor

MAX_SEED = 2**32 - 1


def candidate_seed(run_seed: int, prompt: str, image_index: int, candidate_index: int) -> int:
    """The seed of one candidate, in [0, LARGEST_SEED]; the prompt enters stripped of outer blanks."""
    text = f"{run_seed}|{prompt.strip()}|{image_index}|{candidate_index}"
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "big")


def noise_generator(
    seed: int, num_draws: int, shape: tuple[int, ...], dtype: torch.dtype = torch.float32
) -> torch.Generator:
    """What `torch.Generator().manual_seed(seed)` is after so many draws of noise (1, *shape) in a dtype."""
    generator = torch.Generator().manual_seed(seed)
    for _ in range(num_draws):
        torch.randn(1, *shape, generator=generator, dtype=dtype)
    return generator


def noise(seed: int, draw: int, shape: tuple[int, ...], dtype: torch.dtype = torch.float32) -> Tensor:
    """Standard normal noise (1, *shape), on the CPU. Other dtypes draw other noise: it is not rounded.

    Draw 0 is the latent, draw s the noise of the s-th further step: just what diffusers takes, one after the other,
    from `torch.Generator().manual_seed(seed)`, so that its plain pipeline makes the same image again.
    """
    return torch.randn(1, *shape, generator=noise_generator(seed, draw, shape, dtype), dtype=dtype)


def noise_batch(
    seeds: tuple[int, ...], draw: int, shape: tuple[int, ...], dtype: torch.dtype = torch.float32
) -> Tensor:
    """The noise of several seeds: (N, *shape)."""
    return torch.cat([noise(seed, draw, shape, dtype) for seed in seeds])
